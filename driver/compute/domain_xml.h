// The domain that an instance is, as libvirt's XML.
#pragma once

#include <optional>
#include <string>

#include "driver/compute/record.h"

namespace virtuserns::compute {

// Where its parts are on this host.
struct Places {
  std::string base;         // the tree of its image; empty: the root is a volume
  std::string root;         // what it writes of that
  std::string rescue_base;  // with Record::rescue
  std::string rescue_root;
  std::string config_drive;  // empty: none
  std::string console_log;
  std::string disk_device;  // the device that `root` is on, for its limits; empty: they cannot be had
};

// What extra specs say. VIR_ERR_INVALID_ARG: one of them makes no sense.
struct CpuLimits {
  std::optional<std::uint64_t> shares, period_us, quota_us;
};
struct DiskLimits {
  std::optional<std::uint64_t> read_bytes, write_bytes, read_iops, write_iops;
  [[nodiscard]] bool is_any() const { return read_bytes || write_bytes || read_iops || write_iops; }
};
[[nodiscard]] Result<CpuLimits> read_cpu_limits(const Flavor& flavor);
[[nodiscard]] Result<DiskLimits> read_disk_limits(const Flavor& flavor);
// The display name, as one line, which libvirt's titles are.
[[nodiscard]] std::string title_of(const InstanceSpec& spec);

// Pure. VIR_ERR_INVALID_ARG: an extra spec makes no sense.
[[nodiscard]] Result<std::string> make_domain_xml(const Record& record, const Places& places);
// One device of it, for attaching and detaching.
[[nodiscard]] Result<std::string> make_interface_xml(const Vif& vif);
[[nodiscard]] std::string make_disk_xml(const VolumeRef& volume);

// What the hypervisor chose: the first line of <idmap>. nullopt: there is none.
[[nodiscard]] Result<std::optional<IdRange>> read_ids(const std::string& domain_xml);

}  // namespace virtuserns::compute
