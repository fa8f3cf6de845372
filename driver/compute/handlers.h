// The handlers, by family (handlers_<family>.cpp): each turns parameters into a call of Compute, and what that says into JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "driver/compute/methods.h"

namespace virtuserns::compute {

inline constexpr std::uint64_t kMaxSeconds = 86400, kMaxMegabytes = std::uint64_t{1} << 40;

struct Call {
  const Service& service;
  const Peer& peer;
  const Object& params;
  Fd& passed;  // of the answer
  [[nodiscard]] Compute& compute() const { return service.compute; }
  [[nodiscard]] Result<std::string> uuid() const { return read_uuid(params); }
  // Of an image, by `max_mb`.
  [[nodiscard]] Result<std::optional<std::uint64_t>> limit_bytes() const {
    if (!params.has("max_mb")) return std::optional<std::uint64_t>();
    return std::optional(TRY(params.number("max_mb", 0, kMaxMegabytes)) << 20);
  }
  [[nodiscard]] Result<Wiring> wiring() const {
    Wiring wiring;
    wiring.network = TRY(read_network(params));
    wiring.volumes = TRY(read_volumes(params));
    return wiring;
  }
};
using Handler = Result<Json> (*)(const Call&);

struct Method {
  std::string_view name;
  Handler handler;
  std::vector<std::string_view> params;
  std::string_view feature = {};  // without which it is refused
};

[[nodiscard]] std::span<const Method> host_methods();
[[nodiscard]] std::span<const Method> life_methods();
[[nodiscard]] std::span<const Method> migrate_methods();
[[nodiscard]] std::span<const Method> watch_methods();
[[nodiscard]] std::span<const Method> device_methods();
[[nodiscard]] std::span<const Method> image_methods();

[[nodiscard]] inline Json nothing() { return Json::object(); }
[[nodiscard]] inline Json ids_of(const std::optional<IdRange>& ids) {
  return {{"ids", ids ? to_json(*ids) : Json()}};
}

}  // namespace virtuserns::compute
