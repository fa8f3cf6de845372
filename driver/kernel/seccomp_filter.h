// The system calls that no domain makes: one BPF program, compiled in the daemon, installed by the controller.
//
// Everything is allowed but a list, so that a distribution boots; the list is what has broken other containers:
// loading kernels and modules, handles of files (open_by_handle_at), bpf, perf, userfaultfd, io_uring, keyrings
// (not namespaced), clocks, swap, quota, i/o ports, the kernel's log, AF_VSOCK sockets (not namespaced), the ioctls that
// type into a terminal (TIOCSTI, TIOCLINUX), odd personalities, and system calls newer than those we know. They answer
// EPERM; what a program tries before something older (clone3, io_uring, unknown calls) answers ENOSYS, so that it
// falls back.
//
// User namespaces inside a domain are refused (clone, unshare; clone3 cannot be looked into and answers ENOSYS): most
// kernel bugs of the last ten years were reached through one. Nesting is a later choice of the definition.
// Left open, and why: the new mount calls (systemd needs them), reboot (of the pid namespace), ptrace (own ids only).
// 32-bit calls get the same list. socketcall(2) hides its arguments from BPF: socket and socketpair by that way are
// refused, unless the domain's own architecture is 32-bit (Debian's i386 C library knows no other way).
#pragma once

#include <cstdint>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::kernel {

enum class Word { k64, k32 };  // of the domain's own architecture

struct SeccompPolicy {
  Word word = Word::k64;
  bool allow_user_namespaces = false;
};

// An array of struct sock_filter (8 bytes each, native byte order).
[[nodiscard]] Result<std::vector<std::uint8_t>> compile_seccomp_filter(const SeccompPolicy& policy);

}  // namespace virtuserns::kernel
