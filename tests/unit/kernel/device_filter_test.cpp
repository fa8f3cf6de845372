// The device program, run by an interpreter of the few instructions it is made of, against the rules it was made from.
#include "driver/kernel/device_filter.h"

#include <gtest/gtest.h>

#include <cstring>

namespace virtuserns::kernel {
namespace {

std::uint32_t run(const std::vector<bpf_insn>& program, const bpf_cgroup_dev_ctx& context) {
  std::uint32_t registers[11] = {};
  const auto* memory = reinterpret_cast<const std::uint8_t*>(&context);
  for (std::size_t at = 0; at < program.size(); ++at) {
    const auto& in = program[at];
    auto& to = registers[in.dst_reg];
    switch (in.code) {
      case BPF_LDX | BPF_MEM | BPF_W:
        std::memcpy(&to, memory + in.off, sizeof to);
        break;
      case BPF_ALU | BPF_MOV | BPF_X:
        to = registers[in.src_reg];
        break;
      case BPF_ALU | BPF_MOV | BPF_K:
        to = static_cast<std::uint32_t>(in.imm);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        to &= static_cast<std::uint32_t>(in.imm);
        break;
      case BPF_ALU | BPF_RSH | BPF_K:
        to >>= in.imm;
        break;
      case BPF_JMP32 | BPF_JNE | BPF_K:
        if (to != static_cast<std::uint32_t>(in.imm)) at += static_cast<std::size_t>(in.off);
        break;
      case BPF_JMP | BPF_EXIT:
        return registers[BPF_REG_0];
      default:
        ADD_FAILURE() << "instruction " << int{in.code};
        return 2;
    }
  }
  ADD_FAILURE() << "ran off the end";
  return 2;
}

bool may(const std::vector<DeviceRule>& rules, std::uint32_t type, std::uint32_t access, std::uint32_t major,
         std::uint32_t minor) {
  return run(device_program(rules), {(access << 16) | type, major, minor}) == 1;
}

TEST(DeviceProgram, AllowsWhatTheTableNames) {
  const auto& rules = standard_device_rules();
  constexpr std::uint32_t kOpen = BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;
  EXPECT_TRUE(may(rules, BPF_DEVCG_DEV_CHAR, kOpen, 1, 3));
  EXPECT_TRUE(may(rules, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 9));
  EXPECT_TRUE(may(rules, BPF_DEVCG_DEV_CHAR, kOpen, 136, 77)) << "every pseudo terminal";
  EXPECT_FALSE(may(rules, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 1)) << "/dev/mem";
  EXPECT_FALSE(may(rules, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_READ, 1, 3)) << "a block device of the same numbers";
  EXPECT_FALSE(may(rules, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_MKNOD, 10, 229));
  EXPECT_FALSE(may({}, BPF_DEVCG_DEV_CHAR, kOpen, 1, 3)) << "no rule, no device";
}

TEST(DeviceProgram, EveryWishMustBeInTheRule) {
  const std::vector<DeviceRule> rules = {{DeviceKind::kBlock, 8, 1, DeviceRule::kRead}};
  for (std::uint32_t access = 1; access < 8; ++access)
    EXPECT_EQ(may(rules, BPF_DEVCG_DEV_BLOCK, access, 8, 1), access == BPF_DEVCG_ACC_READ) << access;
  EXPECT_FALSE(may(rules, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_READ, 8, 2));
  EXPECT_FALSE(may(rules, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_READ, 9, 1));
}

TEST(DeviceProgram, TheLastOfTheMostRulesIsReached) {
  std::vector<DeviceRule> rules(kMaxDeviceRules - 1, DeviceRule{DeviceKind::kCharacter, 1, 3});
  rules.push_back({DeviceKind::kCharacter, 0xfff, 0xfffff});
  EXPECT_TRUE(may(rules, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 0xfff, 0xfffff));
  EXPECT_LE(device_program(rules).size(), 4096u) << "the limit of old kernels";
}

TEST(DeviceRules, AsTheKernelReadsThem) {
  EXPECT_EQ(format_device_rule({DeviceKind::kCharacter, 136, std::nullopt}), "c 136:* rwm");
  EXPECT_EQ(format_device_rule({DeviceKind::kBlock, 8, 0, DeviceRule::kRead}), "b 8:0 r");
}

}  // namespace
}  // namespace virtuserns::kernel
