// The <portForward> of an <interface type='user'>, port by port.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns {

struct ForwardedPort {
  bool is_udp = false;
  std::string address, dev;  // of the host; empty: any
  std::uint16_t host = 0, guest = 0;
};

// Each of them is a socket of a process of its own.
inline constexpr std::size_t kMaxForwardedPorts = 1024;

// In the order of the definition. An error: a range that ends before it starts or leads beyond port 65535, no range at all, a port
// that is forwarded twice (whatever the address: passt tells them apart by number), or too many.
[[nodiscard]] Result<std::vector<ForwardedPort>> forwarded_ports(const InterfaceDef& interface);

}  // namespace virtuserns
