#include "conf/owner.h"

#include <gtest/gtest.h>

#include <functional>

#include "conf/defaults.h"

namespace virtuserns {
namespace {

constexpr OwnedRules rules() { return {"/controller", 100, 64}; }

DomainDef good() {
  DomainDef def;
  def.name = "web";
  def.max_memory_kib = 65536;
  def.userns.owner = OwnerDef{"anna", {}, false};
  def.filesystems.push_back({});
  def.filesystems.back().source = "/home/anna/web";
  def.filesystems.back().target = "/";
  apply_defaults(def, {"x86_64", "/controller"});
  return def;
}

TEST(Owner, IsOneNameOrOneNumber) {
  EXPECT_TRUE(validate_owner({"anna", {}, false}));
  EXPECT_TRUE(validate_owner({"", 1001, false}));
  for (const OwnerDef& bad :
       {OwnerDef{}, OwnerDef{"anna", 1001, false}, OwnerDef{"root", {}, false}, OwnerDef{"", 0, false},
        OwnerDef{"1001", {}, false}, OwnerDef{"a:b", {}, false}, OwnerDef{std::string(300, 'a'), {}, false}})
    EXPECT_FALSE(validate_owner(bad)) << describe_owner(bad);
  EXPECT_TRUE(is_owner({"anna", {}, false}, 7, "anna"));
  EXPECT_FALSE(is_owner({"anna", {}, false}, 7, ""));
  EXPECT_FALSE(is_owner({"", {}, false}, 7, ""));
  EXPECT_TRUE(is_owner({"", 7, false}, 7, "elsa"));
  EXPECT_FALSE(is_owner({"", 8, false}, 7, "elsa"));
}

TEST(Owned, WhatIsOnesOwnToWrite) {
  DomainDef def = good();
  EXPECT_TRUE(check_owned(def, rules()));
  def.filesystems.push_back({});
  def.filesystems.back().type = FilesystemType::kRam;
  def.features.capabilities["chown"] = false;
  def.userns.seccomp.deny = {"ptrace"};
  def.userns.pids_limit = 100;
  def.userns.id_count = 10;
  def.cputune.shares = 2;
  def.memtune.hard_limit_kib = 1024;
  def.metadata.push_back({"urn:x", "<x xmlns=\"urn:x\"/>"});
  EXPECT_TRUE(check_owned(def, rules()));
}

TEST(Owned, EverythingElseIsRefusedByName) {
  const auto kept = [](std::vector<KeptXml>& list) { list.push_back({"what", "<what/>"}); };
  const std::pair<std::function<void(DomainDef&)>, const char*> cases[] = {
      {[](auto& d) { d.userns.owner.reset(); }, "no <userns:owner>"},
      {[](auto& d) { d.userns.owner->has_host_sources = true; }, "sources='host'"},
      {[](auto& d) { d.filesystems[0].type = FilesystemType::kFile; }, "<filesystem> at '/'"},
      {[](auto& d) { d.filesystems[0].type = FilesystemType::kBlock; }, "<filesystem> at '/'"},
      {[](auto& d) { d.filesystems[0].type = FilesystemType::kTemplate; }, "template"},
      {[](auto& d) { d.filesystems[0].type = FilesystemType::kVolume; }, "volume"},
      {[](auto& d) { d.filesystems[0].driver_type = "loop"; }, "<driver>"},
      {[](auto& d) { d.filesystems[0].source_pool = "p"; }, "pool"},
      {[](auto& d) { d.userns.images.emplace_back(); }, "<userns:image>"},
      {[](auto& d) { d.userns.overlays.emplace_back(); }, "<userns:overlay>"},
      {[](auto& d) { d.disks.emplace_back(); }, "<disk>"},
      {[](auto& d) { d.hostdevs.emplace_back(); }, "<hostdev>"},
      {[](auto& d) { d.interfaces.emplace_back(); }, "<interface>"},
      {[](auto& d) { d.consoles[0].log_file = "/x"; }, "<log file>"},
      {[](auto& d) { d.consoles[0].type = "file"; }, "<console type='file'>"},
      {[](auto& d) { d.features.capabilities_policy = CapabilitiesPolicy::kAllow; }, "policy='allow'"},
      {[](auto& d) { d.features.capabilities["sys_time"] = true; }, "'sys_time'"},
      {[](auto& d) { d.userns.seccomp.has_nesting = true; }, "<userns:seccomp>"},
      {[](auto& d) { d.userns.seccomp.allow = {"keyctl"}; }, "<userns:seccomp>"},
      {[](auto& d) { d.userns.seccomp.is_logged = false; }, "log='no'"},
      {[](auto& d) { d.seclabels.emplace_back(); }, "<seclabel>"},
      {[](auto& d) { d.shared_namespaces.emplace_back(); }, "<lxc:namespace>"},
      {[](auto& d) { d.emulator = "/bin/sh"; }, "<emulator>"},
      {[](auto& d) { d.resource.partition = "/system"; }, "<partition>"},
      {[](auto& d) {
         d.blkio.devices.push_back({"/dev/sda", 1, {}, {}, {}, {}});
       },
       "<blkiotune>"},
      {[](auto& d) { d.userns.pids_limit = 101; }, "above 100"},
      {[](auto& d) { d.userns.id_group = "g"; }, "<userns:ids group=''>"},
      {[&](auto& d) { kept(d.kept); }, "<what>"},
      {[&](auto& d) { kept(d.kept_devices); }, "<what>"},
      {[&](auto& d) { kept(d.os.kept); }, "<what>"},
      {[&](auto& d) { kept(d.filesystems[0].kept); }, "<what>"},
      {[&](auto& d) { kept(d.consoles[0].kept); }, "<what>"},
      {[&](auto& d) { kept(d.features.kept); }, "<what>"},
  };
  for (const auto& [change, part] : cases) {
    DomainDef def = good();
    change(def);
    const auto checked = check_owned(def, rules());
    ASSERT_FALSE(checked) << part;
    EXPECT_EQ(checked.error().code, VIR_ERR_ACCESS_DENIED) << part;
    EXPECT_NE(checked.error().text.find(part), std::string::npos) << checked.error().text;
  }
}

}  // namespace
}  // namespace virtuserns
