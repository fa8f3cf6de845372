#include "conf/tuning.h"

#include <gtest/gtest.h>

namespace virtuserns {
namespace {

using namespace std::string_literals;

TEST(CheckParams, SaysWhatIsWrongInLibvirtsWords) {
  EXPECT_TRUE(check_memory_params({{"hard_limit", std::uint64_t{1}}}));
  const auto unknown = check_memory_params({{"color", std::uint64_t{1}}});
  EXPECT_EQ(unknown.error().code, VIR_ERR_ARGUMENT_UNSUPPORTED);
  EXPECT_EQ(unknown.error().text, "parameter 'color' not supported");
  const auto wrong_type = check_memory_params({{"hard_limit", std::int32_t{1}}});
  EXPECT_EQ(wrong_type.error().code, VIR_ERR_INVALID_ARG);
  EXPECT_EQ(wrong_type.error().text, "invalid type 'int' for parameter 'hard_limit', expected 'ullong'");
  const auto twice = check_memory_params({{"hard_limit", std::uint64_t{1}}, {"hard_limit", std::uint64_t{2}}});
  EXPECT_EQ(twice.error().text, "parameter 'hard_limit' occurs multiple times");
}

TEST(MemoryParams, UnlimitedIsAbsence) {
  DomainDef def;
  for (const TypedParam& param : memory_params(def)) EXPECT_EQ(param.value, TypedValue(kMemoryUnlimitedKib));
  ASSERT_TRUE(
      apply_memory_params(def, {{"hard_limit", std::uint64_t{1000}}, {"swap_hard_limit", std::uint64_t{2000}}}));
  EXPECT_EQ(def.memtune.hard_limit_kib, 1000U);
  ASSERT_TRUE(apply_memory_params(def, {{"swap_hard_limit", kMemoryUnlimitedKib}}));
  EXPECT_FALSE(def.memtune.swap_hard_limit_kib);
}

TEST(MemoryParams, HardLimitMayNotPassTheSwapLimit) {
  DomainDef def;
  def.memtune.swap_hard_limit_kib = 2000;
  const DomainDef before = def;
  const auto refused =
      apply_memory_params(def, {{"soft_limit", std::uint64_t{5}}, {"hard_limit", std::uint64_t{3000}}});
  EXPECT_EQ(refused.error().code, VIR_ERR_INVALID_ARG);
  EXPECT_EQ(def, before) << "nothing of a refused set is kept";
}

TEST(SchedulerParams, ZeroTakesTheValueOut) {
  DomainDef def;
  ASSERT_TRUE(apply_scheduler_params(def, {{"cpu_shares", std::uint64_t{512}}, {"vcpu_quota", std::int64_t{-1}}}));
  EXPECT_EQ(def.cputune.shares, 512U);
  EXPECT_EQ(def.cputune.quota_us, -1);
  EXPECT_EQ(scheduler_params(def, kLiveSchedulerDefaults).at(1), (TypedParam{"vcpu_period", std::uint64_t{100'000}}));
  ASSERT_TRUE(apply_scheduler_params(def, {{"cpu_shares", std::uint64_t{0}}, {"vcpu_quota", std::int64_t{0}}}));
  EXPECT_FALSE(def.cputune.shares);
  EXPECT_FALSE(def.cputune.quota_us);
  for (const TypedParam& bad :
       {TypedParam{"cpu_shares", std::uint64_t{1}}, TypedParam{"vcpu_period", std::uint64_t{999}},
        TypedParam{"vcpu_period", std::uint64_t{1'000'001}}, TypedParam{"vcpu_quota", std::int64_t{999}}}) {
    EXPECT_EQ(apply_scheduler_params(def, {bad}).error().code, VIR_ERR_INVALID_ARG) << bad.field;
  }
}

TEST(BlkioParams, DeviceListsMergeByPath) {
  DomainDef def;
  ASSERT_TRUE(
      apply_blkio_params(def, {{"weight", std::uint32_t{500}}, {"device_weight", "/dev/sda,300,/dev/sdb,700"s}}));
  ASSERT_TRUE(apply_blkio_params(def, {{"device_read_bytes_sec", "/dev/sdb,8589934592"s}}));
  ASSERT_TRUE(apply_blkio_params(def, {{"device_weight", "/dev/sda,0"s}}));
  ASSERT_EQ(def.blkio.devices.size(), 1U) << "sda has nothing left";
  EXPECT_EQ(def.blkio.devices[0].path, "/dev/sdb");
  const TypedParams params = blkio_params(def);
  EXPECT_EQ(params.at(0), (TypedParam{"weight", std::uint32_t{500}}));
  EXPECT_EQ(params.at(1), (TypedParam{"device_weight", "/dev/sdb,700"s}));
  EXPECT_EQ(params.at(2), (TypedParam{"device_read_iops_sec", ""s}));
  EXPECT_EQ(params.at(4), (TypedParam{"device_read_bytes_sec", "/dev/sdb,8589934592"s}));
}

TEST(BlkioParams, RefusesWhatDoesNotParseAndKeepsNothingOfIt) {
  DomainDef def;
  for (const std::string text : {"/dev/sda", "/dev/sda,x", "/dev/sda,1,", ",100", "/dev/sda,-1", "/dev/sda,5000"}) {
    EXPECT_EQ(apply_blkio_params(def, {{"weight", std::uint32_t{500}}, {"device_weight", text}}).error().code,
              VIR_ERR_INVALID_ARG)
        << text;
  }
  EXPECT_EQ(apply_blkio_params(def, {{"device_read_iops_sec", "/dev/sda,4294967296"s}}).error().code,
            VIR_ERR_INVALID_ARG);
  EXPECT_EQ(def, DomainDef{});
}

TEST(MemorySize, MaximumOfARunningDomainIsFixed) {
  DomainDef live, config;
  live.max_memory_kib = config.max_memory_kib = 1000;
  EXPECT_EQ(apply_memory_size({&live, nullptr}, 2000, VIR_DOMAIN_MEM_MAXIMUM).error().code,
            VIR_ERR_OPERATION_INVALID);
  EXPECT_EQ(apply_memory_size({&live, &config}, 1001, 0).error().text, "Cannot set memory higher than max memory");
  ASSERT_TRUE(apply_memory_size({nullptr, &config}, 2000, VIR_DOMAIN_MEM_MAXIMUM));
  EXPECT_EQ(current_memory_kib(config), 1000U) << "a higher maximum leaves the size";
  ASSERT_TRUE(apply_memory_size({nullptr, &config}, 500, VIR_DOMAIN_MEM_MAXIMUM));
  EXPECT_EQ(current_memory_kib(config), 500U);
}

TEST(VcpuCount, CurrentIsAbsentWhenItIsTheMaximum) {
  DomainDef def;
  def.vcpu.max = 4;
  ASSERT_TRUE(apply_vcpu_count({nullptr, &def}, 2, 16, 0));
  EXPECT_EQ(def.vcpu.current, 2U);
  ASSERT_TRUE(apply_vcpu_count({nullptr, &def}, 2, 16, VIR_DOMAIN_VCPU_MAXIMUM));
  EXPECT_EQ(def.vcpu.max, 2U);
  EXPECT_FALSE(def.vcpu.current);
  EXPECT_FALSE(apply_vcpu_count({nullptr, &def}, 17, 16, VIR_DOMAIN_VCPU_MAXIMUM));
  EXPECT_FALSE(apply_vcpu_count({nullptr, &def}, 0, 16, 0));
}

TEST(VcpuPins, StandInOrderBeforeOtherKeptElements) {
  DomainDef def;
  def.vcpu.max = 2;
  def.cputune.kept.push_back({"emulatorpin", "<emulatorpin cpuset='0'/>"});
  ASSERT_TRUE(apply_vcpu_pin(def, 1, {true, true, false, false}));
  ASSERT_TRUE(apply_vcpu_pin(def, 0, {false, false, true, true}));
  ASSERT_TRUE(apply_vcpu_pin(def, 1, {false, true, false, false}));
  ASSERT_EQ(def.cputune.kept.size(), 3U);
  EXPECT_EQ(def.cputune.kept[0].xml, "<vcpupin vcpu='0' cpuset='2-3'/>");
  EXPECT_EQ(def.cputune.kept[1].xml, "<vcpupin vcpu='1' cpuset='1'/>");
  EXPECT_EQ(def.cputune.kept[2].name, "emulatorpin");
  EXPECT_EQ(vcpu_pins(def, 4).at(1), (std::vector<bool>{false, true, false, false}));
  EXPECT_FALSE(apply_vcpu_pin(def, 2, {true}));
  EXPECT_FALSE(apply_vcpu_pin(def, 0, {false}));
}

}  // namespace
}  // namespace virtuserns
