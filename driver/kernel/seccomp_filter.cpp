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

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "conf/base/fd.h"
#include "conf/system_calls.h"

namespace virtuserns::kernel {

namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kNative = SCMP_ARCH_X86_64, k32Bit = SCMP_ARCH_X86;
#elif defined(__aarch64__)
constexpr std::uint32_t kNative = SCMP_ARCH_AARCH64, k32Bit = SCMP_ARCH_ARM;
#else
#error "say which 32-bit architecture belongs to this one"
#endif
static_assert(SCMP_ARCH_X86_64 == AUDIT_ARCH_X86_64 && SCMP_ARCH_X86 == AUDIT_ARCH_I386);

// What weakens a process: READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, ADDR_COMPAT_LAYOUT, ... Not among them: PER_LINUX32,
// UNAME26, ADDR_NO_RANDOMIZE (debuggers).
constexpr std::uint32_t kOddPersonalities = 0x7ff0fff0u & ~0x00020000u & ~0x00040000u;

enum class Verdict { kAllow, kRefuse, kUnknown };

// Every call of the table with what the definition makes of it.
std::map<std::string_view, Verdict> verdicts(const SeccompDef& changes) {
  std::map<std::string_view, Verdict> list;
  for (const auto& group : call_groups()) {
    const bool is_refused = group.rule == CallRule::kRefused || group.rule == CallRule::kNever;
    for (const auto call : calls_of(group))
      list[call] = group.rule == CallRule::kAllowed ? Verdict::kAllow
                   : is_refused                     ? Verdict::kRefuse
                                                    : Verdict::kUnknown;
  }
  for (const auto& call : changes.allow)
    if (const auto found = list.find(call); found != list.end() && check_allowed_call(call, changes.has_nesting))
      found->second = Verdict::kAllow;
  for (const auto& call : changes.deny) {
    if (const auto found = list.find(call); found != list.end()) found->second = Verdict::kRefuse;
    // 32-bit programs reach these by one call that does them all and cannot be looked into.
    const auto* group = find_call_group(call);
    if (group && group->name == "sockets") list["socketcall"] = Verdict::kRefuse;
    if (call.starts_with("shm") || call.starts_with("sem") || call.starts_with("msg")) list["ipc"] = Verdict::kRefuse;
  }
  return list;
}

using Context = std::unique_ptr<void, decltype(&::seccomp_release)>;

Result<void> add_rule(const Context& context, std::string_view name, Verdict verdict) {
  if (verdict == Verdict::kUnknown) return {};
  const int number = ::seccomp_syscall_resolve_name(std::string(name).c_str());
  if (number == __NR_SCMP_ERROR) return {};  // newer than this libseccomp: see front()
  const auto action = verdict == Verdict::kAllow ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM);
  const int result = ::seccomp_rule_add_array(context.get(), action, number, 0, nullptr);
  // A call that no architecture of the filter has.
  if (result < 0 && result != -EDOM && result != -EINVAL)
    return sys_fail("seccomp rule for " + std::string(name), -result);
  return {};
}

// libseccomp's own search by name gives i386 no number for socket and its sisters, for which that has two ways.
std::optional<std::uint32_t> number_of(std::uint32_t arch, std::string_view name) {
  static const auto numbers = [] {
    std::map<std::pair<std::uint32_t, std::string>, std::uint32_t> all;
    for (const std::uint32_t of : {kNative, k32Bit})
      for (std::uint32_t number = 0; number < 1024; ++number)
        if (char* text = ::seccomp_syscall_resolve_num_arch(of, static_cast<int>(number))) {
          all[{of, text}] = number;
          ::free(text);
        }
    return all;
  }();
  const auto found = numbers.find({arch, std::string(name)});
  if (found != numbers.end()) return found->second;
  for (const auto& known : numbered_calls())
    if (known.name == name && (!known.is_x86_64_only || arch == SCMP_ARCH_X86_64)) return known.number;
  return std::nullopt;
}

constexpr sock_filter statement(std::uint16_t code, std::uint32_t k) { return {code, 0, 0, k}; }
constexpr sock_filter jump(std::uint16_t code, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
  return {code, yes, no, k};
}

// One call that is refused for one of its arguments. Only the lower half is looked at: the kernel takes an int, and the
// upper half is whatever the caller likes (CVE-2019-10063). kAnyBit: one of the bits of `operand` is set; kOddBit: and
// it is not 0xffffffff, which only asks.
enum class Test { kEqual, kAnyBit, kOddBit };
struct Check {
  const char* call;
  int argument;
  Test test;
  std::uint32_t operand;
};

std::vector<Check> checks_for(std::uint32_t arch, const SeccompPolicy& policy) {
  std::vector<Check> checks = {{"socket", 0, Test::kEqual, AF_VSOCK},
                               {"socketpair", 0, Test::kEqual, AF_VSOCK},
                               {"personality", 0, Test::kOddBit, kOddPersonalities},
                               {"ioctl", 1, Test::kEqual, TIOCSTI},
                               {"ioctl", 1, Test::kEqual, TIOCLINUX}};
  if (!policy.changes.has_nesting) {
    checks.push_back({"clone", 0, Test::kAnyBit, CLONE_NEWUSER});
    checks.push_back({"unshare", 0, Test::kAnyBit, CLONE_NEWUSER});
  }
  if (arch == SCMP_ARCH_X86 && policy.word == Word::k64) {
    checks.push_back({"socketcall", 0, Test::kEqual, 1});  // SYS_SOCKET
    checks.push_back({"socketcall", 0, Test::kEqual, 8});  // SYS_SOCKETPAIR
  }
  return checks;
}

constexpr std::uint16_t kLoad = BPF_LD | BPF_W | BPF_ABS, kEqualTo = BPF_JMP | BPF_JEQ | BPF_K,
                        kAnyBitOf = BPF_JMP | BPF_JSET | BPF_K, kReturn = BPF_RET | BPF_K;
constexpr std::uint32_t kNumber = offsetof(seccomp_data, nr), kArch = offsetof(seccomp_data, arch),
                        kArguments = offsetof(seccomp_data, args);

// Falls through when none of the checks hits.
std::vector<sock_filter> for_architecture(std::uint32_t arch, const std::vector<Check>& checks,
                                          std::vector<sock_filter> body) {
  for (const auto& check : checks) {
    const auto number = number_of(arch, check.call);
    if (!number) continue;
    std::vector<sock_filter> block = {statement(kLoad, kArguments + 8 * static_cast<std::uint32_t>(check.argument))};
    if (check.test == Test::kOddBit) block.push_back(jump(kEqualTo, 0xffffffff, 2, 0));
    block.push_back(jump(check.test == Test::kEqual ? kEqualTo : kAnyBitOf, check.operand, 0, 1));
    block.push_back(statement(kReturn, SECCOMP_RET_ERRNO | EPERM));
    block.push_back(statement(kLoad, kNumber));
    body.push_back(jump(kEqualTo, *number, 0, static_cast<std::uint8_t>(block.size())));
    body.insert(body.end(), block.begin(), block.end());
  }
  body.insert(body.begin(),
              {statement(kLoad, kArch), jump(kEqualTo, arch, 0, static_cast<std::uint8_t>(body.size() + 1)),
               statement(kLoad, kNumber)});
  return body;
}

// What libseccomp cannot say: calls it is too old to know, sockets without its detour through socketcall, and bits of a
// personality.
std::vector<sock_filter> front(const SeccompPolicy& policy, const std::map<std::string_view, Verdict>& list) {
  std::vector<sock_filter> everywhere, native_only;
  for (const auto& call : numbered_calls()) {
    const auto verdict = list.at(call.name);
    if (verdict == Verdict::kUnknown || (call.is_x86_64_only && kNative != SCMP_ARCH_X86_64) ||
        ::seccomp_syscall_resolve_name(std::string(call.name).c_str()) != __NR_SCMP_ERROR)
      continue;
    auto& code = call.is_x86_64_only ? native_only : everywhere;
    code.push_back(jump(kEqualTo, call.number, 0, 1));
    code.push_back(statement(kReturn, verdict == Verdict::kAllow ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EPERM));
  }
  everywhere.insert(everywhere.begin(), statement(kLoad, kNumber));
  for (const std::uint32_t arch : {kNative, k32Bit}) {
    const auto body =
        for_architecture(arch, checks_for(arch, policy), arch == kNative ? native_only : std::vector<sock_filter>());
    everywhere.insert(everywhere.end(), body.begin(), body.end());
  }
  return everywhere;
}

Result<std::vector<std::uint8_t>> exported(const Context& context, const std::vector<sock_filter>& code) {
  const Fd file(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!file) return sys_fail("memfd_create");
  if (const int result = ::seccomp_export_bpf(context.get(), file.get()); result < 0)
    return sys_fail("compile seccomp filter", -result);
  const auto size = ::lseek(file.get(), 0, SEEK_END);
  const std::size_t front_bytes = code.size() * sizeof(sock_filter);
  std::vector<std::uint8_t> program(front_bytes + static_cast<std::size_t>(size > 0 ? size : 0));
  std::memcpy(program.data(), code.data(), front_bytes);
  if (size <= 0 || ::pread(file.get(), program.data() + front_bytes, static_cast<std::size_t>(size), 0) != size)
    return fail(VIR_ERR_INTERNAL_ERROR, "compile seccomp filter: cut short");
  return program;
}

std::vector<CallName> refusable(const SeccompPolicy& policy, const std::map<std::string_view, Verdict>& list) {
  std::vector<CallName> names;
  for (const std::uint32_t arch : {kNative, k32Bit}) {
    const auto checks = checks_for(arch, policy);
    for (const auto& [name, verdict] : list) {
      const bool is_checked =
          std::any_of(checks.begin(), checks.end(), [&](const Check& c) { return c.call == name; });
      const auto number = number_of(arch, name);
      if ((verdict == Verdict::kRefuse || is_checked) && number) names.push_back({arch, *number, std::string(name)});
    }
  }
  return names;
}

}  // namespace

Result<SeccompFilter> compile_seccomp_filter(const SeccompPolicy& policy) {
  const Context context(::seccomp_init(SCMP_ACT_ERRNO(ENOSYS)), &::seccomp_release);
  if (!context) return fail(VIR_ERR_INTERNAL_ERROR, "seccomp_init failed");
  if (const int result = ::seccomp_arch_add(context.get(), k32Bit); result < 0 && result != -EEXIST)
    return sys_fail("seccomp architecture", -result);
  // A call of an architecture that is not in the filter (x32): refused, not killed.
  (void)::seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
  (void)::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a tree, not a chain
  const auto list = verdicts(policy.changes);
  for (const auto& [name, verdict] : list) TRY(add_rule(context, name, verdict));
  return SeccompFilter{TRY(exported(context, front(policy, list))), refusable(policy, list)};
}

}  // namespace virtuserns::kernel
