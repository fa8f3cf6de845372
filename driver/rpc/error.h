// Errors on the wire, in libvirt's words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "conf/base/result.h"
#include "driver/events.h"

namespace virtuserns::rpc {

namespace wire {
// clang-format off: one line per struct
struct NetworkName {
  std::string name;
  Uuid uuid;
};
struct RemoteError {
  std::int32_t code = 0, domain = 0;
  std::optional<std::string> message;
  std::int32_t level = 2;
  std::optional<DomainRef> object;
  std::optional<std::string> str1, str2, str3;
  std::int32_t int1 = -1, int2 = -1;
  std::optional<NetworkName> network;
};
// clang-format on
}  // namespace wire

// The text that libvirt puts around an error's detail; "%s" stands for the detail.
[[nodiscard]] const char* message_template(int code);
[[nodiscard]] wire::RemoteError make_remote_error(const Error& error);

}  // namespace virtuserns::rpc
