// What OpenStack's Nova writes into <metadata> of the domains that it defines: nova/virt/libvirt/config.py there.
#pragma once

#include <string>

#include "conf/domain.h"

namespace virtuserns::xml {

inline constexpr std::string_view kNovaUri = "http://openstack.org/xmlns/libvirt/nova/1.1";

// uuid of <nova:instance><nova:owner><nova:project>, if it can be a part of a group's name (validate_id_group); else empty.
[[nodiscard]] std::string nova_project(const DomainDef& def);

}  // namespace virtuserns::xml
