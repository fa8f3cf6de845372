#include "driver/kernel/seccomp_filter.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

using namespace virtuserns;

namespace {

// The kernel's interpreter for the few instructions a seccomp program may hold (seccomp(2)).
std::uint32_t run(const std::vector<sock_filter>& code, const seccomp_data& data) {
  std::uint32_t a = 0;
  for (std::size_t pc = 0; pc < code.size(); ++pc) {
    const auto& in = code[pc];
    const auto branch = [&](bool yes) { pc += yes ? in.jt : in.jf; };
    switch (in.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        std::memcpy(&a, reinterpret_cast<const char*>(&data) + in.k, 4);
        break;
      case BPF_JMP | BPF_JA:
        pc += in.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        branch(a == in.k);
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        branch(a > in.k);
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        branch(a >= in.k);
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        branch((a & in.k) != 0);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        a &= in.k;
        break;
      case BPF_RET | BPF_K:
        return in.k;
      default:
        ADD_FAILURE() << "instruction " << in.code;
        return 0;
    }
  }
  ADD_FAILURE() << "ran off the end";
  return 0;
}

struct Filter : testing::Test {
  std::vector<sock_filter> code = load({});
  static std::vector<sock_filter> load(const kernel::SeccompPolicy& policy) {
    const auto bytes = kernel::compile_seccomp_filter(policy);
    EXPECT_TRUE(bytes) << (bytes ? "" : bytes.error().text);
    std::vector<sock_filter> program(bytes->size() / sizeof(sock_filter));
    std::memcpy(program.data(), bytes->data(), bytes->size());
    return program;
  }
  // 0: allowed; otherwise the errno.
  int verdict(std::uint32_t arch, int call, std::vector<std::uint64_t> arguments = {}) {
    seccomp_data data{call, arch, 0, {}};
    for (std::size_t i = 0; i < arguments.size(); ++i) data.args[i] = arguments[i];
    const auto action = run(code, data);
    return action == SECCOMP_RET_ALLOW                               ? 0
           : (action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO ? static_cast<int>(action & 0xffff)
                                                                     : -1;
  }
  int native(int call, std::vector<std::uint64_t> arguments = {}) {
    return verdict(AUDIT_ARCH_X86_64, call, std::move(arguments));
  }
  int ia32(int call, std::vector<std::uint64_t> arguments = {}) {
    return verdict(AUDIT_ARCH_I386, call, std::move(arguments));
  }
};

TEST_F(Filter, RefusesDangerousCalls) {
  for (const int call : {SYS_kexec_load,
                         SYS_kexec_file_load,
                         SYS_init_module,
                         SYS_finit_module,
                         SYS_delete_module,
                         SYS_create_module,
                         SYS_query_module,
                         SYS_get_kernel_syms,
                         SYS_bpf,
                         SYS_lookup_dcookie,
                         SYS__sysctl,
                         SYS_uselib,
                         SYS_nfsservctl,
                         SYS_sysfs,
                         SYS_vserver,
                         SYS_open_by_handle_at,
                         SYS_quotactl,
                         SYS_quotactl_fd,
                         SYS_acct,
                         SYS_swapon,
                         SYS_swapoff,
                         SYS_keyctl,
                         SYS_add_key,
                         SYS_request_key,
                         SYS_perf_event_open,
                         SYS_userfaultfd,
                         SYS_syslog,
                         SYS_settimeofday,
                         SYS_clock_settime,
                         SYS_adjtimex,
                         SYS_clock_adjtime,
                         SYS_iopl,
                         SYS_ioperm,
                         SYS_afs_syscall,
                         SYS_tuxcall,
                         SYS_security,
                         SYS_getpmsg,
                         SYS_putpmsg})
    EXPECT_EQ(native(call), EPERM) << call;
  for (const int call : {SYS_clone3, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register})
    EXPECT_EQ(native(call), ENOSYS) << call;
}

TEST_F(Filter, RefusesTheSameOf32BitPrograms) {
  // i386: init_module 128, kexec_load 283, keyctl 288, bpf 357, perf_event_open 336, vm86 166, vm86old 113, iopl 110,
  // open_by_handle_at 342, userfaultfd 374, clock_settime64 404, stime 25, clone3 435
  for (const int call : {128, 283, 288, 357, 336, 166, 113, 110, 342, 374, 404, 25})
    EXPECT_EQ(ia32(call), EPERM) << call;
  EXPECT_EQ(ia32(435), ENOSYS);
  EXPECT_EQ(ia32(120, {CLONE_NEWUSER}), EPERM);
}

TEST_F(Filter, LooksAtArguments) {
  EXPECT_EQ(native(SYS_clone, {CLONE_NEWUSER | SIGCHLD}), EPERM);
  EXPECT_EQ(native(SYS_clone, {CLONE_NEWPID | SIGCHLD}), 0);
  EXPECT_EQ(native(SYS_unshare, {CLONE_NEWUSER}), EPERM);
  EXPECT_EQ(native(SYS_unshare, {CLONE_NEWNS}), 0);
  EXPECT_EQ(native(SYS_ioctl, {0, TIOCSTI}), EPERM);
  EXPECT_EQ(native(SYS_ioctl, {0, TIOCSTI | 0x100000000}), EPERM)
      << "the kernel ignores the upper half (CVE-2019-10063)";
  EXPECT_EQ(native(SYS_ioctl, {0, TIOCLINUX}), EPERM);
  EXPECT_EQ(native(SYS_ioctl, {0, TIOCGWINSZ}), 0);
  EXPECT_EQ(native(SYS_socket, {AF_VSOCK}), EPERM);
  EXPECT_EQ(native(SYS_socket, {AF_VSOCK | 0x700000000}), EPERM);
  EXPECT_EQ(native(SYS_socketpair, {AF_VSOCK}), EPERM);
  EXPECT_EQ(native(SYS_socket, {AF_INET}), 0);
  EXPECT_EQ(native(SYS_socket, {AF_NETLINK}), 0);
  EXPECT_EQ(native(SYS_personality, {0xffffffff}), 0);
  EXPECT_EQ(native(SYS_personality, {0x0008}), 0);
  EXPECT_EQ(native(SYS_personality, {0x0040000}), 0);
  EXPECT_EQ(native(SYS_personality, {0x0400000}), EPERM);
  EXPECT_EQ(native(SYS_personality, {0x40400000}), EPERM);
}

TEST_F(Filter, SocketsOf32BitPrograms) {
  EXPECT_EQ(ia32(359, {AF_VSOCK}), EPERM);
  EXPECT_EQ(ia32(359, {AF_INET}), 0);
  EXPECT_EQ(ia32(102, {1, 0xdead}), EPERM) << "arguments of socketcall cannot be seen";
  EXPECT_EQ(ia32(102, {3, 0xdead}), 0);
  code = load({kernel::Word::k32, false});
  EXPECT_EQ(ia32(102, {1, 0xdead}), 0);
  EXPECT_EQ(ia32(359, {AF_VSOCK}), EPERM);
}

TEST_F(Filter, OtherAbisAndUnknownCalls) {
  EXPECT_EQ(native(SYS_read | 0x40000000), ENOSYS);  // x32
  EXPECT_EQ(native(463), ENOSYS);
  EXPECT_EQ(native(100'000), ENOSYS);
  EXPECT_EQ(verdict(AUDIT_ARCH_AARCH64, 63), ENOSYS);
}

TEST_F(Filter, LetsADistributionBoot) {
  for (const int call : {SYS_read,
                         SYS_openat,
                         SYS_openat2,
                         SYS_mount,
                         SYS_umount2,
                         SYS_pivot_root,
                         SYS_fsopen,
                         SYS_fsmount,
                         SYS_move_mount,
                         SYS_mount_setattr,
                         SYS_reboot,
                         SYS_setns,
                         SYS_ptrace,
                         SYS_seccomp,
                         SYS_prctl,
                         SYS_capset,
                         SYS_setuid,
                         SYS_sethostname,
                         SYS_mknod,
                         SYS_chroot,
                         SYS_name_to_handle_at,
                         SYS_execve,
                         SYS_inotify_init1,
                         SYS_fanotify_init,
                         SYS_memfd_create,
                         SYS_pidfd_open,
                         SYS_rseq,
                         SYS_statx,
                         452})
    EXPECT_EQ(native(call), 0) << call;
}

// The kernel accepts the program and does what the interpreter says.
TEST_F(Filter, HoldsInAProcess) {
  const pid_t child = ::fork();
  if (child == 0) {
    sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      ::_exit(2);
    const auto refused = [](long result, int error) { return result == -1 && errno == error; };
    const bool holds =
        refused(::syscall(SYS_keyctl, 0, 0), EPERM) && refused(::syscall(SYS_bpf, 0, 0, 0), EPERM) &&
        refused(::unshare(CLONE_NEWUSER), EPERM) && refused(::socket(AF_VSOCK, SOCK_STREAM, 0), EPERM) &&
        refused(::syscall(SYS_clone3, 0, 0), ENOSYS) && refused(::syscall(SYS_io_uring_setup, 0, 0), ENOSYS) &&
        refused(::syscall(SYS_open_by_handle_at, -1, 0, 0), EPERM) && ::getpid() > 0;
    ::_exit(holds ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
