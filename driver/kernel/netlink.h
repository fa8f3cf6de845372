// Netlink messages (netlink(7)), built and read with every length checked. Why not libmnl: docs/decisions/0003.
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

// One request. Attributes that do not fit the 16 bits of a length make the message unusable instead of a shorter one
// (CVE-2021-43784 was that wrap).
class NetlinkMessage {
 public:
  NetlinkMessage(std::uint16_t type, std::uint16_t flags);

  template <class T>
  void header(const T& value) {
    append(&value, sizeof value);
  }
  void attribute(std::uint16_t type, const void* data, std::size_t size);
  void attribute(std::uint16_t type, std::uint32_t value) { attribute(type, &value, sizeof value); }
  void attribute(std::uint16_t type, std::string_view text);  // with its final NUL
  void attribute(std::uint16_t type, std::span<const std::uint8_t> bytes) {
    attribute(type, bytes.data(), bytes.size());
  }
  // A nested attribute: everything appended until end() is inside it.
  [[nodiscard]] std::size_t begin(std::uint16_t type);
  void end(std::size_t nest);

  [[nodiscard]] bool is_valid() const { return is_valid_; }
  // The bytes with the lengths and `sequence` filled in.
  [[nodiscard]] std::span<const std::uint8_t> finish(std::uint32_t sequence);

 private:
  void append(const void* data, std::size_t size);
  std::vector<std::uint8_t> bytes_;
  bool is_valid_ = true;
};

struct NetlinkAttribute {
  std::uint16_t type = 0;
  std::span<const std::uint8_t> bytes;
  [[nodiscard]] std::uint32_t u32() const;
  [[nodiscard]] std::string text() const;
};
// The attributes in `bytes`; stops at the first one that does not fit.
[[nodiscard]] std::vector<NetlinkAttribute> parse_attributes(std::span<const std::uint8_t> bytes);

// A NETLINK_ROUTE socket in the caller's network namespace.
class RouteSocket {
 public:
  [[nodiscard]] static Result<RouteSocket> open();
  // Sends and waits for the kernel's verdict; its own words are in the error, its errno in sys_errno.
  [[nodiscard]] Result<void> request(NetlinkMessage message);
  // As request, calling `visit` with the type and payload of every answer.
  using Visit = std::function<void(std::uint16_t, std::span<const std::uint8_t>)>;
  [[nodiscard]] Result<void> query(NetlinkMessage message, const Visit& visit);

 private:
  explicit RouteSocket(SocketFd socket) : socket_(std::move(socket)) {}
  SocketFd socket_;
  std::uint32_t sequence_ = 0;
};

// One datagram of answers. nullopt: more follow; otherwise the verdict for `sequence`. Exposed for tests.
struct NetlinkVerdict {
  int error = 0;
  std::string text;
};
[[nodiscard]] std::optional<NetlinkVerdict> read_answers(std::span<const std::uint8_t> bytes, std::uint32_t sequence,
                                                         const RouteSocket::Visit& visit);

}  // namespace virtuserns::kernel
