// The user namespace in which the controller of an ordinary user is root.
//
// Nothing of a start is for host root alone: it is for the root of whatever user namespace the controller is in. So that of
// userns:///session makes itself one before it does anything else. It has the user's own id as 0, and the domain's ids as
// what they are on the host, so that a plan means the same in it; nobody else's id exists in there. From then on it goes the way
// that every controller goes.
//
// The maps are written by newuidmap(1) and newgidmap(1) of package uidmap, which alone may (user_namespaces(7), "Defining
// user and group ID mappings"), and which see to it that /etc/subuid and /etc/subgid allow it, whatever the daemon thought.
#pragma once

#include <cstdint>
#include <span>

#include "conf/idmap.h"
#include "driver/controller/plan.h"

namespace virtuserns::controller {

// Pure: what is mapped for a plan. Adjacent and repeated ranges are one line.
[[nodiscard]] IdMaps outer_maps(const LaunchPlan& plan, std::uint32_t own_uid, std::uint32_t own_gid);

// For one that is not uid 0: makes the namespace and executes this very program again in it, with `plan_bytes` to be read at
// kPlanFd, because the kernel asks in which namespace a process was exec'd before it shows its /proc to the root of that
// namespace (ptrace(2), "Ptrace access mode checking"). Returns only with an error; whoever called must then end, because it may
// be in a namespace without ids.
[[nodiscard]] Error enter_outer_namespace(const LaunchPlan& plan, std::span<const std::uint8_t> plan_bytes,
                                          char* const* argv);

}  // namespace virtuserns::controller
