// The children of <devices>: one device as text and back, for <devices> and for attach, detach and update.
#pragma once

#include <string>
#include <string_view>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "xml/domain.h"
#include "xml/node.h"
#include "xml/writer.h"

namespace virtuserns::xml {

// `flags`: kParseLive keeps alias, tty and generated host names. Kinds that a container cannot have attached are
// VIR_ERR_CONFIG_UNSUPPORTED and are named.
[[nodiscard]] Result<DeviceDef> parse_device(std::string_view text, unsigned flags = kParseInactive);
[[nodiscard]] std::string format_device(const DeviceDef& device, FormatKind kind = FormatKind::kActive);

// <devices> of a domain. Devices of a type that the model does not have (a <disk type='network'>) are kept as text.
[[nodiscard]] Result<void> parse_devices(const Node& node, unsigned flags, DomainDef& def);
[[nodiscard]] Element make_devices(const DomainDef& def, FormatKind kind, Secrets secrets);

// ---- one file each: filesystem.cpp, disk.cpp, interface.cpp, console.cpp, hostdev.cpp, net_ip.cpp -----------------

[[nodiscard]] Result<FilesystemDef> parse_filesystem(const Node& node, unsigned flags);
[[nodiscard]] Result<DiskDef> parse_disk(const Node& node, unsigned flags);
[[nodiscard]] Result<InterfaceDef> parse_interface(const Node& node, unsigned flags);
[[nodiscard]] Result<ConsoleDef> parse_console(const Node& node, unsigned flags);
[[nodiscard]] Result<HostdevDef> parse_hostdev(const Node& node, unsigned flags);
[[nodiscard]] Element make_filesystem(const FilesystemDef& def, FormatKind kind);
[[nodiscard]] Element make_disk(const DiskDef& def, FormatKind kind);
[[nodiscard]] Element make_interface(const InterfaceDef& def, FormatKind kind);
[[nodiscard]] Element make_console(const ConsoleDef& def, FormatKind kind);
[[nodiscard]] Element make_hostdev(const HostdevDef& def, FormatKind kind);

// <ip> and <route> below `node`.
[[nodiscard]] Result<void> parse_ip_info(const Node& node, std::vector<IpAddressDef>& ips,
                                         std::vector<RouteDef>& routes);
// An attribute that may be missing; canonical, of either family.
[[nodiscard]] Result<std::string> parse_any_address(const Node& node, std::string_view name);
void add_ip_info(Element& element, const std::vector<IpAddressDef>& ips, const std::vector<RouteDef>& routes);

// <alias name=''>: of inactive XML only the user's own ("ua-...") count.
[[nodiscard]] std::optional<DeviceAlias> parse_alias(const Node& device, unsigned flags);
void add_alias(Element& element, const std::optional<DeviceAlias>& alias, FormatKind kind);
// "52:54:00:12:34:56"
[[nodiscard]] std::optional<MacAddress> parse_mac(std::string_view text);
[[nodiscard]] std::string format_mac(const MacAddress& mac);

}  // namespace virtuserns::xml
