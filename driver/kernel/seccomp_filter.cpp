#include "driver/kernel/seccomp_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <span>

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
  if (changes.has_nesting) list["clone3"] = Verdict::kAllow;  // no flag of it is refused any more
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

using Numbers = std::map<std::uint32_t, std::string>;

// libseccomp's names by number, and those that it is too old to know. (Its search by name gives i386 no number for socket
// and its sisters, for which that has two ways.)
const Numbers& numbers_of(std::uint32_t arch) {
  static const auto read = [](std::uint32_t of) {
    Numbers numbers;
    const auto scan = [&](std::uint32_t from, std::uint32_t to) {
      for (std::uint32_t number = from; number < to; ++number)
        if (char* name = ::seccomp_syscall_resolve_num_arch(of, static_cast<int>(number))) {
          numbers[number] = name;
          ::free(name);
        }
    };
    scan(0, 1024);
    scan(0xf0000, 0xf0010);  // arm's own
    for (const auto& call : numbered_calls())
      if (!call.is_x86_64_only || of == SCMP_ARCH_X86_64) numbers.emplace(call.number, call.name);
    return numbers;
  };
  static const Numbers native = read(kNative), compat = read(k32Bit);
  return arch == kNative ? native : compat;
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
                        kAnyBitOf = BPF_JMP | BPF_JSET | BPF_K, kNotBelow = BPF_JMP | BPF_JGE | BPF_K,
                        kReturn = BPF_RET | BPF_K;
constexpr std::uint32_t kRefusedAnswer = SECCOMP_RET_ERRNO | EPERM, kAbsentAnswer = SECCOMP_RET_ERRNO | ENOSYS;
constexpr std::uint32_t kNumber = offsetof(seccomp_data, nr), kArch = offsetof(seccomp_data, arch),
                        kArguments = offsetof(seccomp_data, args);

using Code = std::vector<sock_filter>;

void append(Code& code, const Code& more) { code.insert(code.end(), more.begin(), more.end()); }

// Skips `over` when the number in hand is not below `from`. A conditional jump reaches 255 instructions, the other any.
void skip_from(Code& code, std::uint32_t from, const Code& over) {
  if (over.size() <= 255) return code.push_back(jump(kNotBelow, from, static_cast<std::uint8_t>(over.size()), 0));
  code.push_back(jump(kNotBelow, from, 0, 1));
  code.push_back(statement(BPF_JMP | BPF_JA, static_cast<std::uint32_t>(over.size())));
}

// Neighbours with one answer are one run, and a search among runs is a tenth of one among calls: the kernel compiles the
// program at every start.
struct Run {
  std::uint32_t from, answer;
};
Code search(std::span<const Run> runs) {
  if (runs.size() == 1) return {statement(kReturn, runs[0].answer)};
  const auto middle = runs.size() / 2;
  const Code below = search(runs.first(middle));
  Code code;
  skip_from(code, runs[middle].from, below);
  append(code, below);
  append(code, search(runs.subspan(middle)));
  return code;
}

std::vector<Run> runs_of(std::uint32_t arch, const std::map<std::string_view, Verdict>& list) {
  std::vector<Run> runs = {{0, kAbsentAnswer}};
  const auto add = [&](std::uint32_t from, std::uint32_t answer) {
    if (runs.back().from == from)
      runs.back().answer = answer;
    else if (runs.back().answer != answer)
      runs.push_back({from, answer});
  };
  for (const auto& [number, name] : numbers_of(arch)) {
    const auto found = list.find(name);
    const auto verdict = found == list.end() ? Verdict::kUnknown : found->second;
    add(number, verdict == Verdict::kAllow    ? SECCOMP_RET_ALLOW
                : verdict == Verdict::kRefuse ? kRefusedAnswer
                                              : kAbsentAnswer);
    if (!numbers_of(arch).contains(number + 1)) add(number + 1, kAbsentAnswer);
  }
  return runs;
}

Code for_architecture(std::uint32_t arch, const std::vector<Check>& checks,
                      const std::map<std::string_view, Verdict>& list) {
  Code body = {statement(kLoad, kNumber)};
  for (const auto& [number, name] : numbers_of(arch))
    for (const auto& check : checks) {
      if (name != check.call) continue;
      Code block = {statement(kLoad, kArguments + 8 * static_cast<std::uint32_t>(check.argument))};
      if (check.test == Test::kOddBit) block.push_back(jump(kEqualTo, 0xffffffff, 2, 0));
      block.push_back(jump(check.test == Test::kEqual ? kEqualTo : kAnyBitOf, check.operand, 0, 1));
      block.push_back(statement(kReturn, kRefusedAnswer));
      block.push_back(statement(kLoad, kNumber));
      body.push_back(jump(kEqualTo, number, 0, static_cast<std::uint8_t>(block.size())));
      append(body, block);
    }
  append(body, search(runs_of(arch, list)));
  Code code = {statement(kLoad, kArch), jump(kEqualTo, arch, 1, 0),
               statement(BPF_JMP | BPF_JA, static_cast<std::uint32_t>(body.size()))};
  append(code, body);
  return code;
}

std::vector<CallName> refusable(const SeccompPolicy& policy, const std::map<std::string_view, Verdict>& list) {
  std::vector<CallName> names;
  for (const auto arch : {kNative, k32Bit}) {
    const auto checks = checks_for(arch, policy);
    for (const auto& [number, name] : numbers_of(arch)) {
      const auto found = list.find(name);
      if ((found != list.end() && found->second == Verdict::kRefuse) ||
          std::any_of(checks.begin(), checks.end(), [&name = name](const Check& c) { return c.call == name; }))
        names.push_back({arch, number, name});
    }
  }
  return names;
}

}  // namespace

SeccompFilter compile_seccomp_filter(const SeccompPolicy& policy) {
  const auto list = verdicts(policy.changes);
  Code code;
  for (const auto arch : {kNative, k32Bit}) append(code, for_architecture(arch, checks_for(arch, policy), list));
  // An architecture that is neither. (x32 is x86_64 with numbers from 2^30 on, behind the last run.)
  code.push_back(statement(kReturn, kAbsentAnswer));
  SeccompFilter filter{std::vector<std::uint8_t>(code.size() * sizeof(sock_filter)), refusable(policy, list)};
  std::memcpy(filter.program.data(), code.data(), filter.program.size());
  return filter;
}

}  // namespace virtuserns::kernel
