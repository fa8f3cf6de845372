// The system calls that a domain may make: one BPF program, compiled in the daemon, installed by the controller.
//
// An allow-list, the table of conf/system_calls.h with what a definition changes in it. A refused call answers EPERM; one
// that is newer than the table, or that programs try before something older (clone3, io_uring), answers ENOSYS, so that
// they fall back. Of some allowed calls the arguments are looked at, and no definition changes that:
//  * user namespaces (clone, unshare), unless the definition has nesting: most kernel bugs of the last ten years were
//    reached through one. clone3 cannot be looked into;
//  * sockets of AF_VSOCK, which has no namespace;
//  * the ioctls that type into a terminal (TIOCSTI, TIOCLINUX);
//  * odd personalities, which weaken a process.
// 32-bit calls get the same list. socketcall(2) hides its arguments from BPF: socket and socketpair by that way are
// refused, unless the domain's own architecture is 32-bit (Debian's i386 C library knows no other way).
//
// EPERM is only ever the answer to a refused call, so that whoever installs the program can turn exactly those answers
// into notifications (driver/kernel/seccomp.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/domain.h"
#include "conf/system_calls.h"

namespace virtuserns::kernel {

enum class Word { k64, k32 };  // of the domain's own architecture

struct SeccompPolicy {
  Word word = Word::k64;
  SeccompDef changes;
  auto operator<=>(const SeccompPolicy&) const = default;
};

struct SeccompFilter {
  std::vector<std::uint8_t> program;  // an array of struct sock_filter (8 bytes each, native byte order)
  std::vector<CallName> refusable;
};

[[nodiscard]] SeccompFilter compile_seccomp_filter(const SeccompPolicy& policy);

}  // namespace virtuserns::kernel
