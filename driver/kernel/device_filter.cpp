#include "driver/kernel/device_filter.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

// Registers of the program.
constexpr unsigned kResult = BPF_REG_0, kContext = BPF_REG_1, kType = BPF_REG_2, kAccess = BPF_REG_3,
                   kMajor = BPF_REG_4, kMinor = BPF_REG_5, kScratch = BPF_REG_6;

bpf_insn instruction(std::uint8_t code, unsigned to, unsigned from, std::size_t offset, std::uint32_t value) {
  bpf_insn made{};
  made.code = code;
  made.dst_reg = to & 0xf;
  made.src_reg = from & 0xf;
  made.off = static_cast<std::int16_t>(offset);
  made.imm = static_cast<std::int32_t>(value);
  return made;
}

bpf_insn load(unsigned to, std::size_t offset) {
  return instruction(BPF_LDX | BPF_MEM | BPF_W, to, kContext, offset, 0);
}
bpf_insn copy(unsigned to, unsigned from) { return instruction(BPF_ALU | BPF_MOV | BPF_X, to, from, 0, 0); }
bpf_insn set(unsigned to, std::uint32_t value) { return instruction(BPF_ALU | BPF_MOV | BPF_K, to, 0, 0, value); }
bpf_insn mask(unsigned what, std::uint32_t bits) { return instruction(BPF_ALU | BPF_AND | BPF_K, what, 0, 0, bits); }
bpf_insn shift_right(unsigned what, std::uint32_t bits) {
  return instruction(BPF_ALU | BPF_RSH | BPF_K, what, 0, 0, bits);
}
bpf_insn leave() { return instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

// The distance of a jump to the next rule is known when the rule is complete.
bpf_insn skip_unless_equal(unsigned what, std::uint32_t value) {
  return instruction(BPF_JMP32 | BPF_JNE | BPF_K, what, 0, 0, value);
}

std::uint32_t kernel_access(std::uint32_t access) {
  std::uint32_t bits = 0;
  if (access & DeviceRule::kRead) bits |= BPF_DEVCG_ACC_READ;
  if (access & DeviceRule::kWrite) bits |= BPF_DEVCG_ACC_WRITE;
  if (access & DeviceRule::kMakeNode) bits |= BPF_DEVCG_ACC_MKNOD;
  return bits;
}

void append_rule(std::vector<bpf_insn>& program, const DeviceRule& rule) {
  const std::size_t first = program.size();
  program.push_back(
      skip_unless_equal(kType, rule.kind == DeviceKind::kBlock ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR));
  // Any wish beyond what the rule gives makes it the wrong one.
  program.push_back(copy(kScratch, kAccess));
  program.push_back(mask(kScratch, ~kernel_access(rule.access)));
  program.push_back(skip_unless_equal(kScratch, 0));
  program.push_back(skip_unless_equal(kMajor, rule.major));
  if (rule.minor) program.push_back(skip_unless_equal(kMinor, *rule.minor));
  program.push_back(set(kResult, 1));
  program.push_back(leave());
  for (std::size_t at = first; at < program.size(); ++at)
    if (program[at].code == (BPF_JMP32 | BPF_JNE | BPF_K))
      program[at].off = static_cast<std::int16_t>(program.size() - at - 1);
}

// `attributes` is a union of which the kernel reads the part of the command.
int bpf(bpf_cmd command, bpf_attr& attributes) {
  return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof attributes));
}

// The filters of the group itself, which are all ours.
Result<std::vector<Fd>> open_filters(const Cgroup& group) {
  std::array<std::uint32_t, 64> ids{};
  bpf_attr query_it{};
  query_it.query.target_fd = static_cast<std::uint32_t>(group.dir().get());
  query_it.query.attach_type = BPF_CGROUP_DEVICE;
  query_it.query.prog_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  query_it.query.prog_cnt = ids.size();
  if (bpf(BPF_PROG_QUERY, query_it) != 0) return sys_fail("look for the device filter");
  std::vector<Fd> filters;
  for (std::size_t i = 0; i < query_it.query.prog_cnt; ++i) {
    bpf_attr open_it{};
    open_it.prog_id = ids[i];
    filters.emplace_back(bpf(BPF_PROG_GET_FD_BY_ID, open_it));
    if (!filters.back()) return sys_fail("open the device filter");
  }
  return filters;
}

Result<void> detach_program(const Cgroup& group, const Fd& filter) {
  bpf_attr detach_it{};
  detach_it.target_fd = static_cast<std::uint32_t>(group.dir().get());
  detach_it.attach_bpf_fd = static_cast<std::uint32_t>(filter.get());
  detach_it.attach_type = BPF_CGROUP_DEVICE;
  if (bpf(BPF_PROG_DETACH, detach_it) != 0) return sys_fail("detach the former device filter");
  return {};
}

Result<void> attach_program(const Cgroup& group, const std::vector<DeviceRule>& rules) {
  const auto program = device_program(rules);
  static constexpr char kLicense[] = "GPL";
  bpf_attr load_it{};
  load_it.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load_it.insn_cnt = static_cast<std::uint32_t>(program.size());
  load_it.insns = reinterpret_cast<std::uintptr_t>(program.data());
  load_it.license = reinterpret_cast<std::uintptr_t>(kLicense);
  const Fd loaded(bpf(BPF_PROG_LOAD, load_it));
  if (!loaded && (errno == EINVAL || errno == ENOSYS))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "limit devices: this kernel has no device filter for cgroup v2 "
                "(CONFIG_CGROUP_BPF)");
  if (!loaded) return sys_fail("load the device filter");
  bpf_attr attach_it{};
  attach_it.target_fd = static_cast<std::uint32_t>(group.dir().get());
  attach_it.attach_bpf_fd = static_cast<std::uint32_t>(loaded.get());
  attach_it.attach_type = BPF_CGROUP_DEVICE;
  // A program of the service manager above it keeps its say, and nobody below can take ours away.
  attach_it.attach_flags = BPF_F_ALLOW_MULTI;
  if (bpf(BPF_PROG_ATTACH, attach_it) != 0) return sys_fail("attach the device filter");
  return {};
}

// All have to agree: with both there, what the new one adds is not allowed yet, and what it takes away no more.
Result<void> replace_program(const Cgroup& group, const std::vector<DeviceRule>& rules) {
  const auto former = TRY(open_filters(group));
  TRY(attach_program(group, rules));
  for (const auto& filter : former) TRY(detach_program(group, filter));
  return {};
}

bool has_same_device(const DeviceRule& one, const DeviceRule& other) {
  return one.kind == other.kind && one.major == other.major && one.minor == other.minor;
}

Result<void> write_changes(const Cgroup& group, const std::vector<DeviceRule>& from,
                           const std::vector<DeviceRule>& to) {
  std::vector<DeviceRule> gone;
  for (const auto& rule : from)
    if (std::find(to.begin(), to.end(), rule) == to.end()) gone.push_back(rule);
  for (const auto& rule : gone) TRY(group.write("devices.deny", format_device_rule(rule)));
  for (const auto& rule : to) {
    const bool is_new = std::find(from.begin(), from.end(), rule) == from.end();
    // What is denied to a device is taken from all that it was allowed (cgroup-v1/devices.rst).
    const bool is_hit =
        std::any_of(gone.begin(), gone.end(), [&](const auto& other) { return has_same_device(rule, other); });
    if (is_new || is_hit) TRY(group.write("devices.allow", format_device_rule(rule)));
  }
  return {};
}

Result<void> write_rules(const Cgroup& group, const std::vector<DeviceRule>& rules) {
  TRY(group.write("devices.deny", "a"));
  if (rules.empty()) return {};
  const Fd allow = TRY(group.open_for_writing("devices.allow"));
  for (const auto& rule : rules) {
    const auto text = format_device_rule(rule);
    if (::write(allow.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      return sys_fail("write " + quote(text) + " to 'devices.allow'");
  }
  return {};
}

}  // namespace

std::vector<bpf_insn> device_program(const std::vector<DeviceRule>& rules) {
  std::vector<bpf_insn> program = {load(kType, offsetof(bpf_cgroup_dev_ctx, access_type)),
                                   copy(kAccess, kType),
                                   shift_right(kAccess, 16),
                                   mask(kType, 0xffff),
                                   load(kMajor, offsetof(bpf_cgroup_dev_ctx, major)),
                                   load(kMinor, offsetof(bpf_cgroup_dev_ctx, minor))};
  for (const auto& rule : rules) append_rule(program, rule);
  program.push_back(set(kResult, 0));
  program.push_back(leave());
  return program;
}

Result<void> limit_devices(const Cgroup& group, const std::vector<DeviceRule>& rules) {
  if (rules.size() > kMaxDeviceRules)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "limit devices: " + std::to_string(rules.size()) +
                                                " rules are more than " + std::to_string(kMaxDeviceRules));
  return group.is_v2() ? attach_program(group, rules) : write_rules(group, rules);
}

Result<void> change_devices(const Cgroup& group, const std::vector<DeviceRule>& from,
                            const std::vector<DeviceRule>& to) {
  if (to.size() > kMaxDeviceRules)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "limit devices: " + std::to_string(to.size()) + " rules are more than " +
                                                std::to_string(kMaxDeviceRules));
  if (group.is_v2()) return replace_program(group, to);
  auto changed = write_changes(group, from, to);
  if (!changed) (void)write_changes(group, to, from);
  return changed;
}

}  // namespace virtuserns::kernel
