#include "driver/controller/cage.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <initializer_list>

#include "driver/controller/host.h"
#include "driver/kernel/caps.h"

namespace virtuserns::controller {

namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "say which architecture the system calls are of"
#endif

constexpr int kMaxToldRefusals = 16;

// ---- the filter ----

constexpr std::uint16_t kLoad = BPF_LD | BPF_W | BPF_ABS, kEqualTo = BPF_JMP | BPF_JEQ | BPF_K,
                        kAnyBitOf = BPF_JMP | BPF_JSET | BPF_K, kReturn = BPF_RET | BPF_K;

struct Program {
  std::array<sock_filter, 160> code{};
  std::size_t size = 0;

  constexpr void add(std::uint16_t code_of, std::uint32_t k, std::uint8_t yes = 0, std::uint8_t no = 0) {
    code[size++] = {code_of, yes, no, k};
  }
  constexpr void allow(std::uint32_t call) {
    add(kEqualTo, call, 0, 1);
    add(kReturn, SECCOMP_RET_ALLOW);
  }
  // Only the lower half of an argument is looked at: the kernel takes an int.
  constexpr void load_argument(int argument) {
    add(kLoad, static_cast<std::uint32_t>(offsetof(seccomp_data, args)) + 8 * static_cast<std::uint32_t>(argument));
  }
  constexpr void allow_with_one_of(std::uint32_t call, int argument, std::initializer_list<std::uint32_t> values) {
    add(kEqualTo, call, 0, static_cast<std::uint8_t>(2 + 2 * values.size()));
    load_argument(argument);
    for (const auto value : values) {
      add(kEqualTo, value, 0, 1);
      add(kReturn, SECCOMP_RET_ALLOW);
    }
    add(kReturn, SECCOMP_RET_TRAP);
  }
  constexpr void allow_without_bits(std::uint32_t call, int argument, std::uint32_t bits) {
    add(kEqualTo, call, 0, 4);
    load_argument(argument);
    add(kAnyBitOf, bits, 1, 0);
    add(kReturn, SECCOMP_RET_ALLOW);
    add(kReturn, SECCOMP_RET_TRAP);
  }
};

constexpr std::uint32_t as_word(unsigned long value) { return static_cast<std::uint32_t>(value); }

constexpr Program make_program() {
  Program program;
  program.add(kLoad, offsetof(seccomp_data, arch));
  program.add(kEqualTo, kArchitecture, 1, 0);
  program.add(kReturn, SECCOMP_RET_KILL_PROCESS);
  program.add(kLoad, offsetof(seccomp_data, nr));
  for (const std::uint32_t call : {// the loop, and what it hears
                                   SYS_epoll_pwait, SYS_epoll_ctl, SYS_ppoll, SYS_read, SYS_pread64, SYS_recvfrom,
                                   SYS_recvmsg, SYS_accept4, SYS_getsockopt,
#ifdef SYS_epoll_wait
                                   SYS_epoll_wait, SYS_poll,
#endif
                                   // what it says
                                   SYS_write, SYS_sendto, SYS_sendmsg, SYS_close,
                                   // its children, who they are in /proc, and the time
                                   SYS_waitid, SYS_newfstatat, SYS_fstat, SYS_clock_gettime, SYS_gettimeofday,
#ifdef SYS_time
                                   SYS_time,
#endif
                                   // the C library
                                   SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise, SYS_geteuid, SYS_restart_syscall,
                                   SYS_rt_sigreturn, SYS_exit, SYS_exit_group})
    program.allow(call);
  // Files are looked at, never made or written: those that are written are open, or the stem opens them.
  program.allow_without_bits(SYS_openat, 2, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND);
  // Memory holds data.
  program.allow_without_bits(SYS_mmap, 2, PROT_EXEC);
  // Not F_SETOWN, by which the kernel would signal anybody.
  program.allow_with_one_of(SYS_fcntl, 1, {F_SETFL, F_SETFD, F_GETFL, F_GET_SEALS});
  program.allow_with_one_of(SYS_socketpair, 0, {AF_UNIX});
  program.allow_with_one_of(SYS_ioctl, 1,
                            {as_word(SECCOMP_IOCTL_NOTIF_RECV), as_word(SECCOMP_IOCTL_NOTIF_SEND),
                             as_word(SECCOMP_IOCTL_NOTIF_ID_VALID), as_word(TIOCGPTPEER)});
  program.add(kReturn, SECCOMP_RET_TRAP);
  return program;
}

constexpr Program kProgram = make_program();

// ---- what happens to a refused call ----

// In a signal handler: no memory, no lock, no library.
void on_refused(int, siginfo_t* info, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  registers.gregs[REG_RAX] = -EPERM;
#else
  registers.regs[0] = static_cast<std::uint64_t>(-EPERM);
#endif
  static int told = 0;
  if (told >= kMaxToldRefusals) return;
  ++told;
  char line[] = "virtuserns-controller: refused itself system call      : a mistake, or somebody has taken it over\n";
  char* digit = line + sizeof "virtuserns-controller: refused itself system call      " - 2;
  for (auto number = static_cast<unsigned>(info->si_syscall); *digit == ' '; --digit) {
    *digit = static_cast<char>('0' + number % 10);
    if ((number /= 10) == 0) break;
  }
  (void)!::write(STDERR_FILENO, line, sizeof line - 1);
}

Result<void> install_filter() {
  struct sigaction action {};
  action.sa_sigaction = on_refused;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  if (::sigaction(SIGSYS, &action, nullptr) != 0) return sys_fail("hear of refused system calls");
  const sock_fprog program{static_cast<unsigned short>(kProgram.size),
                           const_cast<sock_filter*>(kProgram.code.data())};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) return sys_fail("install seccomp filter");
  return {};
}

Result<void> set_limits() {
  // Descriptors: 64 commands with up to seven, 16 connections, consoles. Memory: all that its buffers may come to, some times.
  static constexpr std::pair<__rlimit_resource, rlim_t> kLimits[] = {
      {RLIMIT_AS, 64 << 20}, {RLIMIT_NOFILE, 1024}, {RLIMIT_CORE, 0}, {RLIMIT_MEMLOCK, 0}};
  for (const auto& [resource, most] : kLimits) {
    const rlimit limit{most, most};
    if (::setrlimit(resource, &limit) != 0) return sys_fail("set resource limit " + std::to_string(resource));
  }
  return {};
}

// The real ids stay: threads of the daemon without a capability may signal it. EINVAL: the namespace of a user's controller
// (outer.h) has no such id. From in there the kernel lets nobody without capabilities look at what is outside.
Result<void> become_nobody() {
  if (::setgroups(0, nullptr) != 0) return sys_fail("drop groups");
  const bool is_group_nobodys = ::setresgid(-1u, kIdOfNobody, -1u) == 0 || errno == EINVAL;
  if (!is_group_nobodys || (::setresuid(-1u, kIdOfNobody, -1u) != 0 && errno != EINVAL))
    return sys_fail("take the id of nobody");
  return {};
}

}  // namespace

std::span<const sock_filter> cage_filter() { return {kProgram.code.data(), kProgram.size}; }

Result<void> enter_cage() {
  constexpr std::uint64_t kKept = std::uint64_t{1} << CAP_KILL;
  TRY(set_limits());
  if (::chroot(kEmptyPath) != 0 || ::chdir("/") != 0) return sys_fail("enter an empty root");
  TRY(kernel::limit_bounding_set(kKept));
  TRY(become_nobody());
  TRY(kernel::limit_capabilities(kKept));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return sys_fail("set no_new_privs");
  return install_filter();
}

}  // namespace virtuserns::controller
