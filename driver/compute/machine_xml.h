// The domain that an instance is when it is a machine, as libvirt's XML for qemu.
#pragma once

#include <string>
#include <vector>

#include "driver/compute/guest_types.h"
#include "driver/compute/record.h"

namespace virtuserns::compute {

// Where its parts are on this host; what is empty there is none of.
struct MachineParts {
  std::string disk, disk_base, rescue_disk, rescue_base;  // qcow2, and what it is over, which is read only
  std::string config_drive;                               // ISO 9660
  std::string console_log;
};

// The one to run it by: by hardware where the host can. VIR_ERR_CONFIG_UNSUPPORTED: the hypervisor runs none of these.
[[nodiscard]] Result<GuestType> choose_machine_type(const std::vector<GuestType>& types);
// Its target of libvirt's. Volumes have names of their own, which Nova begins at vdb.
[[nodiscard]] std::string device_of_own_disk(const Record& record);
// Pure. VIR_ERR_INVALID_ARG: an extra spec makes no sense. The disk that it boots from comes first.
[[nodiscard]] Result<std::string> make_machine_xml(const Record& record, const GuestType& type,
                                                   const MachineParts& parts);
[[nodiscard]] std::string make_machine_interface(const Vif& vif);
[[nodiscard]] std::string make_machine_volume(const VolumeRef& volume);

}  // namespace virtuserns::compute
