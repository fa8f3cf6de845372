// What guests a hypervisor runs, as its capabilities say.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::compute {

struct GuestType {
  std::string arch, virt, os;  // "x86_64", "kvm", "hvm"
  bool operator==(const GuestType&) const = default;
};

// The group of the user that guests of this type run as (security model dac). nullopt: it is nobody in particular.
[[nodiscard]] Result<std::optional<gid_t>> read_guest_group(std::string_view capabilities_xml, std::string_view virt);
// In the hypervisor's order. Pure.
[[nodiscard]] Result<std::vector<GuestType>> read_guest_types(std::string_view capabilities_xml);

}  // namespace virtuserns::compute
