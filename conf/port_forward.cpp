#include "conf/port_forward.h"

#include <set>

#include "conf/base/text.h"

namespace virtuserns {

namespace {

constexpr std::uint32_t kLastPort = 65535;

Result<void> check_range(const PortRangeDef& range) {
  const std::uint32_t end = range.end.value_or(range.start);
  const std::string name = "<range start=" + quote(std::to_string(range.start)) + ">";
  if (range.start == 0) return fail(VIR_ERR_XML_ERROR, "<range> of <portForward> has no start");
  if (end < range.start)
    return fail(VIR_ERR_XML_ERROR, name + " of <portForward> ends at " + std::to_string(end) + ", before its start");
  if (range.exclude.value_or(false) && range.to)
    return fail(VIR_ERR_XML_ERROR, name + " of <portForward> is excluded and leads to a port: give one of the two");
  if (range.to && std::uint32_t{*range.to} + (end - range.start) > kLastPort)
    return fail(VIR_ERR_XML_ERROR, name + " of <portForward> leads to ports above 65535");
  return {};
}

bool is_excluded(const PortForwardDef& forward, std::uint32_t port) {
  for (const auto& range : forward.ranges)
    if (range.exclude.value_or(false) && port >= range.start && port <= range.end.value_or(range.start)) return true;
  return false;
}

Result<void> add(const PortForwardDef& forward, std::vector<ForwardedPort>& ports) {
  const auto before = ports.size();
  const bool is_udp = forward.proto == "udp";
  for (const auto& range : forward.ranges) TRY(check_range(range));
  for (const auto& range : forward.ranges) {
    if (range.exclude.value_or(false)) continue;
    for (std::uint32_t port = range.start; port <= range.end.value_or(range.start); ++port) {
      if (is_excluded(forward, port)) continue;
      const std::uint32_t guest = range.to.value_or(range.start) + (port - range.start);
      ports.push_back({is_udp, forward.address, forward.dev, static_cast<std::uint16_t>(port),
                       static_cast<std::uint16_t>(guest)});
      if (ports.size() > kMaxForwardedPorts)
        return fail(VIR_ERR_CONFIG_UNSUPPORTED, "<portForward> forwards more than " +
                                                    std::to_string(kMaxForwardedPorts) + " ports of an interface");
    }
  }
  if (ports.size() == before)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "<portForward proto=" + quote(forward.proto) +
                    "> forwards no port: name them in <range start='' end='' to=''/>, also where all are meant");
  return {};
}

}  // namespace

Result<std::vector<ForwardedPort>> forwarded_ports(const InterfaceDef& interface) {
  std::vector<ForwardedPort> ports;
  for (const auto& forward : interface.port_forwards) TRY(add(forward, ports));
  std::set<std::pair<bool, std::uint16_t>> seen;
  for (const auto& port : ports)
    if (!seen.emplace(port.is_udp, port.host).second)
      return fail(VIR_ERR_XML_ERROR, std::string(port.is_udp ? "udp" : "tcp") + " port " + std::to_string(port.host) +
                                         " of the host is forwarded twice by one <interface>");
  return ports;
}

}  // namespace virtuserns
