// in: tests/golden/plan/NAME.xml, out: NAME.plan (describe(plan), then messages). UPDATE_GOLDEN=1 rewrites.
// The host is made up: hybrid control groups, or v1 or v2 where the name ends so; with a scope
// of systemd where it begins so.
#include <gtest/gtest.h>

#include <cstdlib>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/defaults.h"
#include "conf/idpool.h"
#include "conf/validate.h"
#include "driver/userns/make_plan.h"
#include "xml/domain.h"

using namespace virtuserns;

namespace {

std::string golden_dir() { return std::string(std::getenv("VIRTUSERNS_SOURCE")) + "/tests/golden/plan"; }

userns::PlanContext made_up_host(const std::string& name, const DomainDef& def) {
  userns::PlanContext context;
  auto& host = context.host;
  host.node.arch = "x86_64";
  host.is_initial_user_namespace = host.has_idmapped_mounts = true;
  host.kernel_major = 6;
  host.kernel_minor = 1;
  host.cgroup_mode = name.ends_with("-v2")   ? CgroupMode::kV2
                     : name.ends_with("-v1") ? CgroupMode::kV1
                                             : CgroupMode::kHybrid;
  if (host.cgroup_mode == CgroupMode::kV2) {
    host.hierarchies = {{"/sys/fs/cgroup", true, {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}, "/"}};
  } else {
    for (const char* controller : {"cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"})
      host.hierarchies.push_back({std::string("/sys/fs/cgroup/") + controller, false, {controller}, "/"});
    host.hierarchies.push_back({"/sys/fs/cgroup/cpu,cpuacct", false, {"cpu", "cpuacct"}, "/"});
    if (host.cgroup_mode == CgroupMode::kHybrid)
      host.hierarchies.push_back({"/sys/fs/cgroup/unified", true, {}, "/"});
  }
  for (const auto& fs : def.filesystems) {
    userns::FilesystemFacts facts;
    const auto own = [](const std::string& path, userns::FilesystemFacts& of) {
      if (path.starts_with("/srv/shifted")) of.owner_uid = of.owner_gid = 2'000'000;
    };
    own(fs.source, facts);
    if (const auto* overlay = find_overlay(def, fs)) {
      facts.is_new = fs.source.ends_with("new");
      for (const auto& lower : overlay->lowers) own(lower, facts.lowers.emplace_back());
    }
    context.filesystems.push_back(facts);
  }
  context.devices = {{"/dev/sda", {true, 8, 0}}, {"/dev/fuse", {false, 10, 229}}};
  context.network_bridges = {{"default", "virbr0"}};
  host.has_unmounted_cgroup2 = name == "unmounted-v1";
  if (name.starts_with("apparmor")) context.apparmor_profiles = {"virtuserns-container", "mine"};
  context.paths.is_session = name.starts_with("session");
  if (def.userns.owner && !def.userns.owner->has_host_sources) context.source_user = SourceUser{1001, 1002};
  if (name.starts_with("scope")) context.scope_group = "machine.slice/virtuserns-web-1.scope";
  context.cpuset_cpus = "0-3";
  context.has_swap_limit = true;
  context.blkio_weight_file = "blkio.bfq.weight";
  context.seccomp.program.assign(80, 0);
  context.seccomp.is_logged = def.userns.seccomp.is_logged;
  context.seccomp.refusable = {{0xc000003e, 321, "bpf"}};
  context.image_prober = "/usr/libexec/virtuserns/virtuserns-image";
  context.storage_daemon = "/usr/bin/qemu-storage-daemon";
  context.image_filter.assign(80, 0);
  return context;
}

Result<DomainDef> read_domain(const std::string& text) {
  DomainDef def = TRY(xml::parse_domain(text));
  apply_defaults(def, {});
  TRY(validate(def));
  return def;
}

Result<userns::MadePlan> plan_of(const DomainDef& def, const userns::PlanContext& context) {
  const IdMaps maps = TRY(choose_maps(def, {2'000'000, 4'000'000'000, 65'536}, {}));
  return make_plan(def, maps, context);
}

std::vector<std::string> cases() {
  std::vector<std::string> names;
  const auto files = list_directory(golden_dir());
  if (files)
    for (const auto& file : *files)
      if (file.ends_with(".xml")) names.push_back(file.substr(0, file.size() - 4));
  return names;
}

class Plan : public testing::TestWithParam<std::string> {};

TEST_P(Plan, MatchesTheGoldenFile) {
  const std::string stem = golden_dir() + "/" + GetParam();
  const auto text = read_file(stem + ".xml");
  ASSERT_TRUE(text);
  const auto def = read_domain(*text);
  ASSERT_TRUE(def) << def.error().text;
  const auto made = plan_of(*def, made_up_host(GetParam(), *def));
  ASSERT_TRUE(made) << made.error().text;
  std::string described = describe(made->plan);
  for (const auto& message : made->messages) described += "message " + message + "\n";
  if (std::getenv("UPDATE_GOLDEN")) {
    ASSERT_TRUE(write_atomic(stem + ".plan", described, 0644));
  }
  const auto golden = read_file(stem + ".plan");
  ASSERT_TRUE(golden) << "no golden file: run with UPDATE_GOLDEN=1";
  EXPECT_EQ(described, *golden);
  const auto decoded = decode_plan(encode_plan(made->plan));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(describe(*decoded), describe(made->plan));
}

INSTANTIATE_TEST_SUITE_P(Golden, Plan, testing::ValuesIn(cases()), [](const auto& instance) {
  std::string name = instance.param;
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
});

TEST(PlanRefusals, NameTheCause) {
  const auto text = read_file(golden_dir() + "/minimal.xml");
  ASSERT_TRUE(text);
  const auto good = read_domain(*text);
  ASSERT_TRUE(good);
  const auto refusal = [&](const DomainDef& def, const auto& change) -> std::string {
    auto context = made_up_host("minimal", def);
    change(context);
    const auto made = plan_of(def, context);
    return made ? "" : made.error().text;
  };
  const auto nothing = [](userns::PlanContext&) {};
  auto def = *good;
  def.filesystems.clear();
  EXPECT_NE(refusal(def, nothing).find("no root filesystem"), std::string::npos);
  def = *good;
  def.filesystems[0].source = "/";
  EXPECT_NE(refusal(def, nothing).find("host's own root"), std::string::npos);
  def = *good;
  def.filesystems[0].type = FilesystemType::kRam;
  EXPECT_NE(refusal(def, nothing), "");
  def = *good;
  def.filesystems.push_back(def.filesystems[0]);
  EXPECT_NE(refusal(def, nothing).find("two <filesystem>"), std::string::npos);
  EXPECT_NE(
      refusal(*good, [](userns::PlanContext& c) { c.host.has_user_namespaces = false; }).find("user namespaces"),
      std::string::npos);
  EXPECT_NE(refusal(*good, [](userns::PlanContext& c) { c.host.has_idmapped_mounts = false; }).find("idmapped"),
            std::string::npos);
  def = *good;
  def.os.arch = "aarch64";
  EXPECT_NE(refusal(def, nothing).find("architecture"), std::string::npos);
  def = *good;
  def.interfaces.push_back({});
  def.interfaces[0].type = InterfaceType::kNetwork;
  def.interfaces[0].source = "nowhere";
  EXPECT_NE(refusal(def, nothing).find("'nowhere'"), std::string::npos);
  def = *good;
  def.filesystems[0].type = FilesystemType::kFile;
  def.filesystems[0].driver_type = "nbd";
  def.filesystems[0].driver_format = "qcow2";
  EXPECT_EQ(refusal(def, nothing), "");
  EXPECT_NE(refusal(def, [](userns::PlanContext& c) { c.storage_daemon.clear(); }).find("qemu-system-common"),
            std::string::npos);
  EXPECT_NE(refusal(def, [](userns::PlanContext& c) { c.paths.is_session = true; }).find("userns:///system"),
            std::string::npos);
  EXPECT_NE(
      refusal(def, [](userns::PlanContext& c) { c.host.is_initial_user_namespace = false; }).find("for a container"),
      std::string::npos);
  def.filesystems[0].driver_type = "loop";
  EXPECT_NE(refusal(def, nothing).find("type='nbd'"), std::string::npos);
  def.filesystems[0].driver_type = "ploop";
  EXPECT_NE(refusal(def, nothing).find("'ploop'"), std::string::npos);
  def.filesystems[0].driver_type = "nbd";
  def.filesystems[0].driver_format = "luks";
  EXPECT_NE(refusal(def, nothing).find("'luks'"), std::string::npos);
  def.filesystems[0].driver_format = "vmdk";
  def.userns.images = {{"/", {}, {}, {}, "", {{"/srv/base", "raw"}}}};
  EXPECT_NE(refusal(def, nothing).find("<userns:backing>"), std::string::npos);
  def.filesystems[0].type = FilesystemType::kBlock;
  EXPECT_NE(refusal(def, nothing).find("block device"), std::string::npos);
  def = *good;
  def.userns.overlays = {{"/", {"/srv/base"}}};
  EXPECT_EQ(refusal(def, nothing), "");
  EXPECT_NE(refusal(def,
                    [](userns::PlanContext& c) {
                      c.host.kernel_major = 5;
                      c.filesystems[0].is_new = true;
                    })
                .find("Linux 5.19"),
            std::string::npos);
  const auto is_session = [](userns::PlanContext& c) { c.paths.is_session = true; };
  EXPECT_NE(refusal(def, is_session).find("what the domain has written"), std::string::npos);
  EXPECT_NE(refusal(def,
                    [&](userns::PlanContext& c) {
                      is_session(c);
                      c.host.kernel_major = 4;
                    })
                .find("Linux 5.11"),
            std::string::npos);
  EXPECT_NE(refusal(def,
                    [](userns::PlanContext& c) {
                      c.source_user = SourceUser{1001, 1001};
                    })
                .find("without an owner"),
            std::string::npos);
  def.filesystems[0].access_mode = "mapped";
  EXPECT_NE(refusal(def,
                    [&](userns::PlanContext& c) {
                      is_session(c);
                      c.filesystems[0].is_new = true;
                    })
                .find("leave out accessmode='mapped'"),
            std::string::npos);
  const auto to_root = make_plan(*good, {{{0, 0, 65'536}}, {{0, 0, 65'536}}}, made_up_host("x", *good));
  EXPECT_FALSE(to_root);
}

TEST(Hostname, IsFiltered) {
  EXPECT_EQ(userns::guest_hostname("-_we.b-1"), "web-1");
  EXPECT_EQ(userns::guest_hostname("___"), "");
  EXPECT_EQ(userns::guest_hostname(std::string(100, 'x')).size(), 64u);
}

TEST(Weights, KeepTheRatioOfShares) {
  EXPECT_EQ(userns::weight_of_shares(1024), 100u);
  EXPECT_EQ(userns::weight_of_shares(2), 1u);
  EXPECT_EQ(userns::weight_of_shares(262'144), 10'000u);
  for (std::uint64_t weight : {1u, 39u, 100u, 10'000u})
    EXPECT_EQ(userns::weight_of_shares(userns::shares_of_weight(weight)), weight);
}

}  // namespace
