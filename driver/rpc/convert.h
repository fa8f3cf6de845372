// Small conversions between the driver's types and the wire's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "driver/rpc/protocol.h"

namespace virtuserns::rpc {

// "How many" when the client says 0, else at most what it has room for: more is an error in libvirt's client.
inline wire::ParamsCountReply counted_params(TypedParams params, std::int64_t room) {
  wire::ParamsCountReply reply;
  reply.count = static_cast<std::int32_t>(params.size());
  if (room <= 0) return reply;
  if (params.size() > static_cast<std::size_t>(room)) params.resize(static_cast<std::size_t>(room));
  reply.count = static_cast<std::int32_t>(params.size());
  reply.params = std::move(params);
  return reply;
}

// Cpu n is bit n % 8 of byte n / 8. Bits beyond `bytes` are dropped.
inline void put_cpu_map(std::uint8_t* map, std::size_t bytes, const std::vector<bool>& cpus) {
  for (std::size_t i = 0; i < cpus.size() && i / 8 < bytes; ++i)
    if (cpus[i]) map[i / 8] = static_cast<std::uint8_t>(map[i / 8] | 1U << (i % 8));
}

inline std::vector<bool> read_cpu_map(const std::vector<std::uint8_t>& map) {
  std::vector<bool> cpus(map.size() * 8);
  for (std::size_t i = 0; i < cpus.size(); ++i) cpus[i] = (map[i / 8] >> (i % 8) & 1) != 0;
  while (!cpus.empty() && !cpus.back()) cpus.pop_back();
  return cpus;
}

// A fixed char array of the old days: an int for each character, and the NUL counts.
inline std::vector<std::int32_t> char_ints(const std::string& text, std::size_t max) {
  std::vector<std::int32_t> ints;
  for (const char c : text.substr(0, max - 1)) ints.push_back(static_cast<signed char>(c));
  ints.push_back(0);
  return ints;
}

}  // namespace virtuserns::rpc
