// What the controller denies itself before the container runs, for ever.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

#include "conf/base/result.h"

struct sock_filter;

namespace virtuserns::controller {

// To what the kernel shows to host root alone, or to the owner of a process, the caged controller has no more right than
// anybody. Not 65534, under which programs of the host run: this number is nobody's, because 16 bits of -1 are an error.
inline constexpr uid_t kIdOfNobody = 65535;

// Gives up every privilege that only the stem needs (stem.h): small limits, an empty root, the effective ids of nobody, no
// capability but one, no new privileges, and a filter that allows the system calls of supervising. A call that the filter
// refuses answers EPERM and is told on standard error, the domain's log.
//
// The capability that stays is CAP_KILL: the kernel sends init the death signal of its parent only if the parent may
// signal it. The filter has no call by which a process could be signalled.
[[nodiscard]] Result<void> enter_cage();

// The filter, for tests.
[[nodiscard]] std::span<const sock_filter> cage_filter();

}  // namespace virtuserns::controller
