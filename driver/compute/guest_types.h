// What guests a hypervisor runs, as its capabilities say.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::compute {

struct GuestType {
  std::string arch, virt, os;  // "x86_64", "kvm", "hvm"
  bool operator==(const GuestType&) const = default;
};

// In the hypervisor's order. Pure.
[[nodiscard]] Result<std::vector<GuestType>> read_guest_types(std::string_view capabilities_xml);

}  // namespace virtuserns::compute
