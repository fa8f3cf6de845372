#include "driver/kernel/seccomp_filter.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <memory>
#include <set>
#include <thread>

#include "conf/system_calls.h"
#include "driver/kernel/seccomp.h"

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
    const auto filter = kernel::compile_seccomp_filter(policy);
    std::vector<sock_filter> program(filter.program.size() / sizeof(sock_filter));
    std::memcpy(program.data(), filter.program.data(), filter.program.size());
    EXPECT_LE(program.size(), 600u) << "the kernel compiles it at every start";
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

// The table is complete, and the filter says of every call of both word sizes what its group says.
TEST_F(Filter, SaysWhatTheTableSays) {
  for (const auto arch :
       std::initializer_list<std::uint32_t>{SCMP_ARCH_X86_64, SCMP_ARCH_X86, SCMP_ARCH_AARCH64, SCMP_ARCH_ARM}) {
    for (int number = 0; number < 1024; ++number) {
      const std::unique_ptr<char, decltype(&::free)> name(::seccomp_syscall_resolve_num_arch(arch, number), &::free);
      if (!name) {
        const auto numbered = numbered_calls();
        const bool is_numbered = std::any_of(numbered.begin(), numbered.end(), [&](const NumberedCall& call) {
          return call.number == static_cast<std::uint32_t>(number);
        });
        if ((arch == SCMP_ARCH_X86_64 || arch == SCMP_ARCH_X86) && !is_numbered) {
          EXPECT_EQ(verdict(arch, number), ENOSYS) << number << " is nobody's";
        }
        continue;
      }
      const auto* group = find_call_group(name.get());
      EXPECT_TRUE(group) << name.get() << " is in no group of conf/system_calls.cpp";
      if (!group || (arch != SCMP_ARCH_X86_64 && arch != SCMP_ARCH_X86)) continue;
      // Arguments that none of the checks minds.
      const int wanted = group->rule == CallRule::kAllowed                                    ? 0
                         : group->rule == CallRule::kAbsent || group->rule == CallRule::kGone ? ENOSYS
                                                                                              : EPERM;
      EXPECT_EQ(verdict(arch, number, {2, 0}), wanted) << name.get() << " of " << std::hex << arch;
    }
  }
}

TEST_F(Filter, KnowsCallsByNumberThatLibseccompMayNot) {
  for (const auto& call : numbered_calls()) {
    EXPECT_TRUE(find_call_group(call.name)) << call.name;
    EXPECT_EQ(native(static_cast<int>(call.number)), 0) << call.name;
    if (!call.is_x86_64_only) {
      EXPECT_EQ(ia32(static_cast<int>(call.number)), 0) << call.name;
    }
    const std::unique_ptr<char, decltype(&::free)> name(
        ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, static_cast<int>(call.number)), &::free);
    if (name) {
      EXPECT_EQ(call.name, name.get());
    }
  }
}

TEST(CallGroups, AreDisjointAndOfKnownNames) {
  std::set<std::string_view> seen;
  const auto is_numbered = [](std::string_view call) {
    const auto numbered = numbered_calls();
    return std::any_of(numbered.begin(), numbered.end(), [&](const NumberedCall& n) { return n.name == call; });
  };
  for (const auto& group : call_groups()) {
    EXPECT_FALSE(group.reason.empty()) << group.name;
    for (const auto call : calls_of(group)) {
      EXPECT_TRUE(seen.insert(call).second) << call << " stands twice";
      EXPECT_TRUE(is_numbered(call) || ::seccomp_syscall_resolve_name(std::string(call).c_str()) != __NR_SCMP_ERROR)
          << call << " is no call of any architecture";
    }
  }
}

TEST_F(Filter, RefusesDangerousCalls) {
  for (const int call : {SYS_kexec_load,    SYS_kexec_file_load,
                         SYS_init_module,   SYS_finit_module,
                         SYS_delete_module, SYS_bpf,
                         SYS_uselib,        SYS_sysfs,
                         SYS_quotactl,      SYS_open_by_handle_at,
                         SYS_quotactl_fd,   SYS_acct,
                         SYS_swapon,        SYS_swapoff,
                         SYS_keyctl,        SYS_add_key,
                         SYS_request_key,   SYS_perf_event_open,
                         SYS_userfaultfd,   SYS_syslog,
                         SYS_settimeofday,  SYS_clock_settime,
                         SYS_adjtimex,      SYS_clock_adjtime,
                         SYS_iopl,          SYS_ioperm,
                         SYS_modify_ldt})
    EXPECT_EQ(native(call), EPERM) << call;
  for (const int call : {SYS_clone3, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_create_module,
                         SYS_query_module, SYS__sysctl, SYS_lookup_dcookie, SYS_nfsservctl, SYS_tuxcall})
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
  code = load({kernel::Word::k32, {}});
  EXPECT_EQ(ia32(102, {1, 0xdead}), 0);
  EXPECT_EQ(ia32(359, {AF_VSOCK}), EPERM);
}

TEST_F(Filter, OtherAbisAndUnknownCalls) {
  EXPECT_EQ(native(SYS_read | 0x40000000), ENOSYS);  // x32
  EXPECT_EQ(native(470), ENOSYS);
  EXPECT_EQ(native(100'000), ENOSYS);
  EXPECT_EQ(verdict(AUDIT_ARCH_AARCH64, 63), ENOSYS);
}

SeccompDef changes(std::vector<std::string> allow, std::vector<std::string> deny, bool has_nesting = false) {
  SeccompDef def;
  def.allow = std::move(allow);
  def.deny = std::move(deny);
  def.has_nesting = has_nesting;
  return def;
}

TEST_F(Filter, ADefinitionAllowsAndDenies) {
  code = load({kernel::Word::k64, changes({"io_uring_setup", "perf_event_open"}, {"listmount", "ptrace"})});
  EXPECT_EQ(native(SYS_perf_event_open), 0);
  EXPECT_EQ(ia32(336), 0);
  EXPECT_EQ(native(SYS_io_uring_setup), 0);
  EXPECT_EQ(native(SYS_io_uring_enter), ENOSYS);
  EXPECT_EQ(native(SYS_ptrace), EPERM);
  EXPECT_EQ(ia32(26), EPERM);
  EXPECT_EQ(native(458), EPERM) << "also a call that libseccomp may not know";
  EXPECT_EQ(ia32(458), EPERM);
  EXPECT_EQ(native(SYS_keyctl), EPERM);
}

TEST_F(Filter, NoDefinitionAllowsWhatReachesPastTheUserNamespace) {
  code = load({kernel::Word::k64, changes({"bpf", "clone3", "ioctl", "open_by_handle_at", "socket"}, {})});
  EXPECT_EQ(native(SYS_open_by_handle_at), EPERM);
  EXPECT_EQ(native(SYS_bpf), EPERM);
  EXPECT_EQ(native(SYS_clone3), ENOSYS) << "would be a way to user namespaces";
  EXPECT_EQ(native(SYS_socket, {AF_VSOCK}), EPERM) << "arguments are still looked at";
  EXPECT_EQ(native(SYS_ioctl, {0, TIOCSTI}), EPERM);
}

TEST_F(Filter, NestingAllowsUserNamespaces) {
  code = load({kernel::Word::k64, changes({}, {"clone3"}, true)});
  EXPECT_EQ(native(SYS_clone3), EPERM) << "denied by name";
  code = load({kernel::Word::k64, changes({}, {}, true)});
  EXPECT_EQ(native(SYS_clone, {CLONE_NEWUSER | SIGCHLD}), 0);
  EXPECT_EQ(native(SYS_unshare, {CLONE_NEWUSER}), 0);
  EXPECT_EQ(ia32(120, {CLONE_NEWUSER}), 0);
  EXPECT_EQ(native(SYS_clone3), 0);
  EXPECT_EQ(native(SYS_socket, {AF_VSOCK}), EPERM);
}

TEST_F(Filter, WhatIsDeniedIsDeniedByTheOldCallsOf32BitTooAsAWhole) {
  code = load({kernel::Word::k64, changes({}, {"listen", "shmget"})});
  EXPECT_EQ(native(SYS_shmget), EPERM);
  EXPECT_EQ(native(SYS_listen), EPERM);
  EXPECT_EQ(native(SYS_bind), 0);
  EXPECT_EQ(ia32(117, {23}), EPERM);  // ipc(SHMGET)
  EXPECT_EQ(ia32(102, {4}), EPERM);   // socketcall(SYS_LISTEN)
}

TEST_F(Filter, NamesWhatItMayRefuse) {
  const auto filter = kernel::compile_seccomp_filter({kernel::Word::k64, changes({"perf_event_open"}, {"ptrace"})});
  const auto name = [&](std::uint32_t arch, std::uint32_t number) -> std::string {
    for (const auto& call : filter.refusable)
      if (call.arch == arch && call.number == number) return call.name;
    return "";
  };
  EXPECT_EQ(name(AUDIT_ARCH_X86_64, SYS_keyctl), "keyctl");
  EXPECT_EQ(name(AUDIT_ARCH_I386, 288), "keyctl");
  EXPECT_EQ(name(AUDIT_ARCH_X86_64, SYS_ptrace), "ptrace");
  EXPECT_EQ(name(AUDIT_ARCH_X86_64, SYS_ioctl), "ioctl");
  EXPECT_EQ(name(AUDIT_ARCH_I386, 102), "socketcall");
  EXPECT_EQ(name(AUDIT_ARCH_X86_64, SYS_perf_event_open), "");
  EXPECT_EQ(name(AUDIT_ARCH_X86_64, SYS_clone3), "") << "not refused but absent";
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

// What waits is seen and answered; what is allowed or absent never waits; without a holder nobody waits.
TEST_F(Filter, RefusalsAreNotified) {
  const auto filter = kernel::compile_seccomp_filter({});
  std::promise<Result<Fd>> installed;
  auto listener_of = installed.get_future();
  int refused = 0, absent = 0, orphaned = 0, second = 0;
  std::promise<void> answered, closed;
  std::thread caller([&] {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    installed.set_value(kernel::install_seccomp_filter(filter.program, kernel::Refusals::kNotified));
    refused = ::syscall(SYS_keyctl, 7, 8) < 0 ? errno : 0;
    absent = ::syscall(SYS_clone3, 0, 0) < 0 ? errno : 0;
    const auto again = kernel::install_seccomp_filter(filter.program, kernel::Refusals::kNotified);
    second = !again ? -1 : *again ? 1 : 0;
    answered.set_value();
    closed.get_future().wait();
    orphaned = ::syscall(SYS_bpf, 0, 0, 0) < 0 ? errno : 0;
  });
  auto listener = listener_of.get();
  EXPECT_TRUE(listener) << listener.error().text;
  if (listener && *listener) {
    pollfd entry{listener->get(), POLLIN, 0};
    EXPECT_EQ(::poll(&entry, 1, 10'000), 1);
    const auto call = kernel::receive_refused(*listener);
    EXPECT_TRUE(call && *call);
    if (call && *call) {
      EXPECT_EQ((*call)->number, SYS_keyctl);
      EXPECT_EQ((*call)->arch, AUDIT_ARCH_X86_64);
      EXPECT_EQ((*call)->arguments[0], 7u);
      EXPECT_TRUE(kernel::still_waits(*listener, **call));
      kernel::answer_refused(*listener, **call, EPERM);
    }
    answered.get_future().wait();
    listener->reset();
    closed.set_value();
    caller.join();
    EXPECT_EQ(refused, EPERM);
    EXPECT_EQ(absent, ENOSYS);
    EXPECT_EQ(second, 0) << "a filter below one with a listener is installed without";
    EXPECT_EQ(orphaned, EPERM) << "of two filters the stronger answer holds";
  } else {
    closed.set_value();
    caller.join();
    EXPECT_EQ(refused, EPERM);
    GTEST_SKIP() << "this kernel gives no listener here";
  }
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
