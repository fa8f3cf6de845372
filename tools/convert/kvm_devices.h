// Devices of a machine's XML, one kind each: for map_domain.cpp and kvm_domain.cpp.
#pragma once

#include <vector>

#include "tools/convert/map_domain.h"
#include "xml/node.h"

namespace virtuserns::convert {

[[nodiscard]] SourceDisk read_disk(const xml::Node& node);
// Nothing where the MAC address is missing or none.
[[nodiscard]] std::optional<NicSource> read_nic(const xml::Node& node);

void map_interfaces(const xml::Node& devices, const MapOptions& options, Mapped& mapped);
// <serial> and <console>, and their logs, to consoles.
void map_consoles(const xml::Node& devices, Mapped& mapped);
// Shared directories (virtiofs, 9p), where the guest's fstab says what they are mounted on.
void map_shares(const xml::Node& devices, const MapOptions& options, Mapped& mapped);
void report_disks(const xml::Node& devices, const MapOptions& options, Mapped& mapped);

}  // namespace virtuserns::convert
