// D, F: system calls, native and as a 32-bit program makes them. The arguments are such that the kernel refuses them with
// another error once it has let the caller through: EPERM and ENOSYS mean that the wall holds, anything else that not.
#include <csetjmp>
#include <csignal>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tools/drill/probes/probe.h"

namespace drill {

namespace {

Verdict judge(long result, int err) {
  if (result >= 0) return failed("succeeded: " + std::to_string(result));
  if (err == EPERM || err == ENOSYS) return held(error_text(err));
  return failed("the kernel was reached: " + error_text(err));
}

struct Call {
  char group;
  const char* name;
  long number;
  long arguments[6];
};

constexpr long kBad = 1;  // an address that nothing is at
constexpr long kNoSuch = 0x7fffffff;

constexpr Call kCalls[] = {
    {'D', "call_bpf", SYS_bpf, {kNoSuch, 0, 0}},
    {'D', "call_perf_event_open", SYS_perf_event_open, {kBad, 0, -1, -1, 0}},
    {'A', "call_keyctl", SYS_keyctl, {kNoSuch, 0, 0}},
    {'A', "call_add_key", SYS_add_key, {kBad, kBad, 0, 0, 0}},
    {'A', "call_request_key", SYS_request_key, {kBad, kBad, 0, 0}},
    {'D', "call_userfaultfd", SYS_userfaultfd, {0x40000001}},
    {'D', "call_io_uring_setup", SYS_io_uring_setup, {0, kBad}},
    {'D', "call_io_uring_enter", SYS_io_uring_enter, {-1, 0, 0, 0, 0, 0}},
    {'D', "call_io_uring_register", SYS_io_uring_register, {-1, 0, 0, 0}},
    {'D', "call_kexec_load", SYS_kexec_load, {0, 1000, kBad, kNoSuch}},
    {'D', "call_kexec_file_load", SYS_kexec_file_load, {-1, -1, 0, kBad, kNoSuch}},
    {'D', "call_init_module", SYS_init_module, {kBad, 0, kBad}},
    {'D', "call_finit_module", SYS_finit_module, {-1, kBad, kNoSuch}},
    {'D', "call_delete_module", SYS_delete_module, {kBad, 0}},
    {'A', "call_open_by_handle_at", SYS_open_by_handle_at, {AT_FDCWD, kBad, 0}},
    {'D', "call_acct", SYS_acct, {kBad}},
    {'D', "call_swapon", SYS_swapon, {kBad, kNoSuch}},
    {'D', "call_swapoff", SYS_swapoff, {kBad}},
    {'D', "call_quotactl", SYS_quotactl, {kNoSuch, kBad, 0, 0}},
    {'D', "call_syslog", SYS_syslog, {kNoSuch, 0, 0}},
    {'D', "call_settimeofday", SYS_settimeofday, {kBad, 0}},
    {'D', "call_clock_settime", SYS_clock_settime, {0, kBad}},
    {'D', "call_adjtimex", SYS_adjtimex, {kBad}},
    {'D', "call_clock_adjtime", SYS_clock_adjtime, {0, kBad}},
#ifdef SYS_iopl
    {'D', "call_iopl", SYS_iopl, {4}},
    {'D', "call_ioperm", SYS_ioperm, {0x10000, 1, 1}},
#endif
    {'D', "call_clone3", SYS_clone3, {kBad, 0}},
    {'D', "call_vsock", SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
    {'D', "call_vsock_pair", SYS_socketpair, {AF_VSOCK, SOCK_STREAM, 0, kBad}},
    {'F', "call_tiocsti", SYS_ioctl, {-1, TIOCSTI, kBad}},
    {'F', "call_tioclinux", SYS_ioctl, {-1, TIOCLINUX, kBad}},
    // Flags above the 32 bits that the kernel looks at must not hide what is asked for.
    {'F', "call_tiocsti_wide", SYS_ioctl, {-1, static_cast<long>(TIOCSTI | 0x7700000000), kBad}},
    {'D', "call_vsock_wide", SYS_socket, {static_cast<long>(AF_VSOCK | 0x7700000000), SOCK_STREAM, 0}},
    {'D', "call_read_implies_exec", SYS_personality, {READ_IMPLIES_EXEC}},
    {'D', "call_mmap_page_zero", SYS_personality, {MMAP_PAGE_ZERO}},
    {'C', "unshare_user_namespace", SYS_unshare, {CLONE_NEWUSER}},
    {'C', "unshare_user_namespace_wide", SYS_unshare, {static_cast<long>(CLONE_NEWUSER | 0x7700000000)}}};

Verdict call(const Call& one) {
  const auto* a = one.arguments;
  const long result = ::syscall(one.number, a[0], a[1], a[2], a[3], a[4], a[5]);
  return judge(result, errno);
}

Verdict clone_user_namespace() {
  const long result = ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  const int err = errno;
  if (result == 0) ::_exit(0);
  if (result > 0) (void)::waitpid(static_cast<pid_t>(result), nullptr, 0);
  return judge(result, err);
}

#if defined(__x86_64__)
sigjmp_buf no_such_gate;
void on_fault(int) { siglongjmp(no_such_gate, 1); }

long int80(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
  long result = 0;
  asm volatile("int $0x80"
               : "=a"(result)
               : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
               : "memory", "cc", "r8", "r9", "r10", "r11");
  return static_cast<int>(result);
}

Verdict call32(const Call& one) {
  struct sigaction action {};
  action.sa_handler = on_fault;
  ::sigaction(SIGSEGV, &action, nullptr);
  if (sigsetjmp(no_such_gate, 1) != 0) return not_applicable("this kernel runs no 32-bit programs");
  constexpr long kGetPid = 20;
  if (int80(kGetPid) <= 0) return not_applicable("this kernel runs no 32-bit programs");
  const auto* a = one.arguments;
  const long result = int80(one.number, a[0], a[1], a[2], a[3], a[4]);
  return judge(result, static_cast<int>(-result));
}

// The numbers of arch/x86/entry/syscalls/syscall_32.tbl.
constexpr Call kCalls32[] = {{'D', "call32_bpf", 357, {kNoSuch, 0, 0}},
                             {'D', "call32_perf_event_open", 336, {kBad, 0, -1, -1, 0}},
                             {'A', "call32_keyctl", 288, {kNoSuch, 0, 0}},
                             {'A', "call32_add_key", 286, {kBad, kBad, 0, 0, 0}},
                             {'A', "call32_request_key", 287, {kBad, kBad, 0, 0}},
                             {'D', "call32_userfaultfd", 374, {0x40000001}},
                             {'D', "call32_io_uring_setup", 425, {0, kBad}},
                             {'D', "call32_kexec_load", 283, {0, 1000, kBad, kNoSuch}},
                             {'D', "call32_init_module", 128, {kBad, 0, kBad}},
                             {'D', "call32_finit_module", 350, {-1, kBad, kNoSuch}},
                             {'A', "call32_open_by_handle_at", 342, {AT_FDCWD, kBad, 0}},
                             {'D', "call32_syslog", 103, {kNoSuch, 0, 0}},
                             {'D', "call32_stime", 25, {kBad}},
                             {'D', "call32_settimeofday", 79, {kBad, 0}},
                             {'D', "call32_clock_settime", 264, {0, kBad}},
                             {'D', "call32_clock_settime64", 404, {0, kBad}},
                             {'D', "call32_adjtimex", 124, {kBad}},
                             {'D', "call32_clock_adjtime64", 405, {0, kBad}},
                             {'D', "call32_iopl", 110, {4}},
                             {'D', "call32_clone3", 435, {kBad, 0}},
                             {'D', "call32_vsock", 359, {AF_VSOCK, SOCK_STREAM, 0}},
                             {'D', "call32_socketcall", 102, {1, kBad}},
                             {'F', "call32_tiocsti", 54, {-1, TIOCSTI, kBad}},
                             {'D', "call32_read_implies_exec", 136, {READ_IMPLIES_EXEC}},
                             {'C', "unshare32_user_namespace", 310, {CLONE_NEWUSER}}};

Verdict x32() {
  constexpr long kX32 = 0x40000000;
  const long result = ::syscall(kX32 | SYS_getpid);
  return judge(result, errno);
}
#endif

}  // namespace

void add_call_probes(std::vector<Probe>& probes) {
  for (const auto& one : kCalls) probes.push_back({one.group, one.name, [&one] { return call(one); }});
  probes.push_back({'C', "clone_user_namespace", clone_user_namespace});
#if defined(__x86_64__)
  for (const auto& one : kCalls32) probes.push_back({one.group, one.name, [&one] { return call32(one); }});
  probes.push_back({'D', "call_x32", x32});
#endif
}

}  // namespace drill
