#include "driver/kernel/seccomp_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <memory>

#include "conf/base/fd.h"

namespace virtuserns::kernel {

namespace {

// mseal is 462; since 424 all architectures number alike. A newer call is unknown to this list and to whoever
// reviewed it.
constexpr std::uint32_t kFirstUnknownCall = 463;

constexpr const char* kRefused[] = {
    // another kernel, more kernel
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module", "query_module",
    "get_kernel_syms", "bpf", "lookup_dcookie", "_sysctl", "uselib", "nfsservctl", "sysfs", "vserver",
    // files by handle pass every mount; quota and accounting are the host's
    "open_by_handle_at", "quotactl", "quotactl_fd", "acct", "swapon", "swapoff",
    // keyrings have no namespace that helps
    "keyctl", "add_key", "request_key", "perf_event_open", "userfaultfd", "syslog", "settimeofday", "stime",
    "clock_settime", "clock_settime64", "adjtimex", "clock_adjtime", "clock_adjtime64", "iopl", "ioperm", "vm86",
    "vm86old", "afs_syscall", "tuxcall", "security", "getpmsg",
    "putpmsg"};  // a name that this libseccomp does not know is skipped

constexpr const char* kAbsent[] = {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"};

// What weakens a process: READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, ADDR_COMPAT_LAYOUT, ... Not among them: PER_LINUX32,
// UNAME26, ADDR_NO_RANDOMIZE (debuggers).
constexpr std::uint32_t kOddPersonalities = 0x7ff0fff0u & ~0x00020000u & ~0x00040000u;

using Context = std::unique_ptr<void, decltype(&::seccomp_release)>;
constexpr scmp_datum_t k32Bits =
    0xffffffff;  // the kernel looks at an int: the upper half is whatever the caller likes

Result<void> refuse(const Context& context, const char* name, std::uint16_t error,
                    std::initializer_list<scmp_arg_cmp> arguments = {}) {
  const int number = ::seccomp_syscall_resolve_name(name);
  if (number == __NR_SCMP_ERROR) return {};
  const int result = ::seccomp_rule_add_array(context.get(), SCMP_ACT_ERRNO(error), number,
                                              static_cast<unsigned>(arguments.size()), arguments.begin());
  // A call that no architecture of the filter has.
  if (result == -EDOM || result == -EINVAL)
    return arguments.size() == 0 ? Result<void>() : sys_fail(std::string("seccomp rule for ") + name, -result);
  if (result < 0) return sys_fail(std::string("seccomp rule for ") + name, -result);
  return {};
}

Result<void> add_rules(const Context& context, const SeccompPolicy& policy) {
  for (const char* name : kRefused) TRY(refuse(context, name, EPERM));
  for (const char* name : kAbsent) TRY(refuse(context, name, ENOSYS));
  if (!policy.allow_user_namespaces) {
    const auto flag = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER);
    TRY(refuse(context, "clone", EPERM, {flag}));
    TRY(refuse(context, "unshare", EPERM, {flag}));
  }
  for (const unsigned long request : {static_cast<unsigned long>(TIOCSTI), static_cast<unsigned long>(TIOCLINUX)})
    TRY(refuse(context, "ioctl", EPERM, {SCMP_A1(SCMP_CMP_MASKED_EQ, k32Bits, request)}));
  return {};
}

constexpr sock_filter statement(std::uint16_t code, std::uint32_t k) { return {code, 0, 0, k}; }
constexpr sock_filter jump(std::uint16_t code, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
  return {code, yes, no, k};
}

// One call whose first argument decides. kAnyBit: one of the bits of `operand` is set, and it is not 0xffffffff.
enum class Test { kEqual, kAnyBit };
struct Check {
  std::uint32_t call;
  Test test;
  std::uint32_t operand;
};

constexpr std::uint16_t kLoad = BPF_LD | BPF_W | BPF_ABS, kEqualTo = BPF_JMP | BPF_JEQ | BPF_K,
                        kFrom = BPF_JMP | BPF_JGE | BPF_K, kAnyBitOf = BPF_JMP | BPF_JSET | BPF_K,
                        kReturn = BPF_RET | BPF_K;
constexpr std::uint32_t kNumber = offsetof(seccomp_data, nr), kArch = offsetof(seccomp_data, arch),
                        kArgument0 = offsetof(seccomp_data, args);

// Falls through when none of the checks hits.
std::vector<sock_filter> for_architecture(std::uint32_t arch, const std::vector<Check>& checks) {
  std::vector<sock_filter> body = {statement(kLoad, kNumber)};
  for (const auto& check : checks) {
    std::vector<sock_filter> block = {statement(kLoad, kArgument0)};
    if (check.test == Test::kEqual) {
      block.push_back(jump(kEqualTo, check.operand, 0, 1));
    } else {
      block.push_back(jump(kEqualTo, 0xffffffff, 2, 0));
      block.push_back(jump(kAnyBitOf, check.operand, 0, 1));
    }
    block.push_back(statement(kReturn, SECCOMP_RET_ERRNO | EPERM));
    block.push_back(statement(kLoad, kNumber));
    body.push_back(jump(kEqualTo, check.call, 0, static_cast<std::uint8_t>(block.size())));
    body.insert(body.end(), block.begin(), block.end());
  }
  body.insert(body.begin(),
              {statement(kLoad, kArch), jump(kEqualTo, arch, 0, static_cast<std::uint8_t>(body.size()))});
  return body;
}

// What libseccomp cannot say: a ceiling on call numbers (which also catches x32), sockets without its detour through
// socketcall, and bits of a personality.
std::vector<sock_filter> prologue(const SeccompPolicy& policy) {
  std::vector<sock_filter> code = {statement(kLoad, kNumber), jump(kFrom, kFirstUnknownCall, 0, 1),
                                   statement(kReturn, SECCOMP_RET_ERRNO | ENOSYS)};
  const auto append = [&](std::uint32_t arch, const std::vector<Check>& checks) {
    const auto body = for_architecture(arch, checks);
    code.insert(code.end(), body.begin(), body.end());
  };
#if defined(__x86_64__)
  append(AUDIT_ARCH_X86_64,
         {{41, Test::kEqual, AF_VSOCK}, {53, Test::kEqual, AF_VSOCK}, {135, Test::kAnyBit, kOddPersonalities}});
  std::vector<Check> checks32 = {
      {359, Test::kEqual, AF_VSOCK}, {360, Test::kEqual, AF_VSOCK}, {136, Test::kAnyBit, kOddPersonalities}};
  if (policy.word == Word::k64) {
    checks32.push_back({102, Test::kEqual, 1});  // socketcall(SYS_SOCKET)
    checks32.push_back({102, Test::kEqual, 8});  // socketcall(SYS_SOCKETPAIR)
  }
  append(AUDIT_ARCH_I386, checks32);
#elif defined(__aarch64__)
  (void)policy;
  append(AUDIT_ARCH_AARCH64,
         {{198, Test::kEqual, AF_VSOCK}, {199, Test::kEqual, AF_VSOCK}, {92, Test::kAnyBit, kOddPersonalities}});
#else
#error "say which system calls have a family or a personality as their first argument"
#endif
  return code;
}

Result<std::vector<std::uint8_t>> exported(const Context& context, const std::vector<sock_filter>& front) {
  const Fd file(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!file) return sys_fail("memfd_create");
  if (const int result = ::seccomp_export_bpf(context.get(), file.get()); result < 0)
    return sys_fail("compile seccomp filter", -result);
  const auto size = ::lseek(file.get(), 0, SEEK_END);
  const std::size_t front_bytes = front.size() * sizeof(sock_filter);
  std::vector<std::uint8_t> program(front_bytes + static_cast<std::size_t>(size > 0 ? size : 0));
  std::memcpy(program.data(), front.data(), front_bytes);
  if (size <= 0 || ::pread(file.get(), program.data() + front_bytes, static_cast<std::size_t>(size), 0) != size)
    return fail(VIR_ERR_INTERNAL_ERROR, "compile seccomp filter: cut short");
  return program;
}

}  // namespace

Result<std::vector<std::uint8_t>> compile_seccomp_filter(const SeccompPolicy& policy) {
  const Context context(::seccomp_init(SCMP_ACT_ALLOW), &::seccomp_release);
  if (!context) return fail(VIR_ERR_INTERNAL_ERROR, "seccomp_init failed");
#if defined(__x86_64__)
  if (const int result = ::seccomp_arch_add(context.get(), SCMP_ARCH_X86); result < 0 && result != -EEXIST)
    return sys_fail("seccomp architecture", -result);
#elif defined(__aarch64__)
  if (const int result = ::seccomp_arch_add(context.get(), SCMP_ARCH_ARM); result < 0 && result != -EEXIST)
    return sys_fail("seccomp architecture", -result);
#endif
  // A call of an architecture that is not in the filter: refused, not killed.
  (void)::seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
  (void)::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a tree, not a chain
  TRY(add_rules(context, policy));
  return exported(context, prologue(policy));
}

}  // namespace virtuserns::kernel
