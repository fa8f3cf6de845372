// Filters of system calls in the kernel: installing one, and hearing of the calls it refuses (seccomp_unotify(2)).
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

enum class Refusals { kAnswered, kNotified };

// On the calling thread, for ever. kNotified: a call that the program answers with EPERM waits instead until the holder
// of the listener has answered it; without a holder it answers ENOSYS. The listener is empty (and the program installed
// as it is) where the kernel cannot do that, or has a listener for a filter above already. The caller needs CAP_SYS_ADMIN
// in its user namespace, or no_new_privs.
[[nodiscard]] Result<Fd> install_seccomp_filter(std::span<const std::uint8_t> program, Refusals refusals);

struct RefusedCall {
  std::uint64_t id = 0;
  pid_t thread = 0;  // in the pid namespace of whoever holds the listener
  std::uint32_t arch = 0, number = 0;
  std::array<std::uint64_t, 6> arguments{};
};

// One that waits. nullopt: it has ended meanwhile. Only after poll(2) said that there is one: this would wait for the next.
[[nodiscard]] Result<std::optional<RefusedCall>> receive_refused(const Fd& listener);
// The number may be another's by now: what was read of it in /proc counts only when this is true afterwards.
[[nodiscard]] bool still_waits(const Fd& listener, const RefusedCall& call);
void answer_refused(const Fd& listener, const RefusedCall& call, int error);

}  // namespace virtuserns::kernel
