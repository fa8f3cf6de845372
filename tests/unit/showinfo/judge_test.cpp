// The rules, each with the fact that makes it the first to decide. tests/root/showinfo.py compares them with the kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <linux/capability.h>
#include <sys/stat.h>

#include <cerrno>

#include "conf/privileges.h"
#include "tests/unit/showinfo/sample_host.h"
#include "tools/showinfo/judge.h"

namespace virtuserns::showinfo {
namespace {

using namespace test;
using testing::HasSubstr;

constexpr std::uint64_t kAll = (std::uint64_t{1} << 41) - 1;

FileFacts make_file(std::uint32_t uid, std::uint32_t gid, mode_t mode) {
  FileFacts file;
  file.path = "/srv/x";
  file.uid = uid;
  file.gid = gid;
  file.mode = (mode & S_IFMT) == 0 ? S_IFREG | mode : mode;
  return file;
}

OpenFacts make_facts(FileFacts target) {
  OpenFacts facts;
  facts.way = {make_file(0, 0, S_IFDIR | 0755)};
  facts.way[0].path = "/srv";
  facts.target = std::move(target);
  return facts;
}

std::string decide(const Subject& subject, const FileFacts& file, unsigned wanted) {
  const auto verdict = judge_open(subject, make_facts(file), wanted);
  return std::string(verdict.answer == Answer::kMay ? "may " : "not ") + verdict.rule;
}

TEST(Capability, CountsInItsOwnNamespaceAndBelow) {
  const auto host = make_host();
  const auto root1 = make_subject(2000000, kAnna1, kAll);
  EXPECT_TRUE(has_capability(root1, host.namespaces, kAnna1, CAP_KILL).is_held);
  EXPECT_TRUE(has_capability(root1, host.namespaces, kInner, CAP_KILL).is_held);
  EXPECT_FALSE(has_capability(root1, host.namespaces, kAnna2, CAP_KILL).is_held);
  EXPECT_FALSE(has_capability(root1, host.namespaces, kHost, CAP_KILL).is_held);
  EXPECT_FALSE(has_capability(root1, host.namespaces, 999, CAP_KILL).is_held);
  EXPECT_FALSE(has_capability(make_subject(2000000, kAnna1, kAll & ~capability_bit(CAP_KILL)), host.namespaces,
                              kAnna1, CAP_KILL)
                   .is_held);
}

TEST(Capability, BelongsToWhoMadeTheNamespace) {
  const auto host = make_host();
  const auto anna = make_subject(1001, kHost);
  EXPECT_TRUE(has_capability(anna, host.namespaces, kAnna1, CAP_SYS_ADMIN).is_held);
  EXPECT_TRUE(
      has_capability(anna, host.namespaces, kInner, CAP_SYS_ADMIN).is_held);  // owns it by way of the outer one
  EXPECT_FALSE(has_capability(anna, host.namespaces, kElsa1, CAP_SYS_ADMIN).is_held);
  // The same number in another namespace made nothing.
  auto stranger = make_subject(2000000, kAnna2);
  stranger.who.uid.effective = 1001;
  EXPECT_FALSE(has_capability(stranger, host.namespaces, kAnna1, CAP_SYS_ADMIN).is_held);
}

TEST(Capability, OverFilesNeedsBothOwnersMapped) {
  const auto root1 = make_subject(2000000, kAnna1, kAll);
  EXPECT_TRUE(has_capability_over(root1, 2000033, 2000044, CAP_DAC_OVERRIDE).is_held);
  EXPECT_FALSE(has_capability_over(root1, 2100000, 2000044, CAP_DAC_OVERRIDE).is_held);
  EXPECT_FALSE(has_capability_over(root1, 2000033, 0, CAP_DAC_OVERRIDE).is_held);
}

TEST(Open, FileOfTheHostInAContainer) {  // row T14
  const auto root1 = make_subject(2000000, kAnna1, kAll);
  EXPECT_EQ(decide(root1, make_file(0, 0, 0604), kRead), "may mode");
  EXPECT_EQ(decide(root1, make_file(0, 0, 0640), kRead), "not mode");
  const auto verdict = judge_open(root1, make_facts(make_file(0, 0, 0640)), kRead);
  EXPECT_EQ(verdict.sys_errno, EACCES);
  EXPECT_THAT(verdict.sentence, HasSubstr("others by mode 0640 may not read"));
  EXPECT_THAT(verdict.sentence,
              HasSubstr("does not count for files of uid 0, which its user namespace does not map"));
}

TEST(Open, OwnerGroupOthers) {
  auto subject = make_subject(2000005, kAnna1);
  subject.who.groups = {2000009};
  EXPECT_EQ(decide(subject, make_file(2000005, 0, 0077), kRead), "not mode");  // the owner is nobody else
  EXPECT_EQ(decide(subject, make_file(2000005, 0, 0600), kRead | kWrite), "may mode");
  EXPECT_EQ(decide(subject, make_file(0, 2000009, 0607), kRead), "not mode");
  EXPECT_EQ(decide(subject, make_file(0, 2000009, 0660), kWrite), "may mode");
  subject.who.effective = capability_bit(CAP_DAC_READ_SEARCH);
  EXPECT_EQ(decide(subject, make_file(2000001, 2000001, 0), kRead), "may capability");
  EXPECT_EQ(decide(subject, make_file(2000001, 2000001, 0), kRead | kWrite), "not mode");
  subject.who.effective = capability_bit(CAP_DAC_OVERRIDE);
  EXPECT_EQ(decide(subject, make_file(2000001, 2000001, 0), kRead | kWrite), "may capability");
  EXPECT_EQ(decide(subject, make_file(2000001, 2000001, 0600), kExecute), "not mode");
  EXPECT_EQ(decide(subject, make_file(2000001, 2000001, 0100), kExecute), "may capability");
}

TEST(Open, AccessControlLists) {
  auto subject = make_subject(2000005, kAnna1);
  auto file = make_file(0, 0, 0670);
  file.acl = Acl{{AclEntry::kOwner, 6, 0},
                 {AclEntry::kUser, 6, 2000005},
                 {AclEntry::kOwningGroup, 0, 0},
                 {AclEntry::kMask, 4, 0},
                 {AclEntry::kOther, 7, 0}};
  EXPECT_EQ(decide(subject, file, kRead), "may acl");
  EXPECT_EQ(decide(subject, file, kWrite), "not acl");
  EXPECT_THAT(judge_open(subject, make_facts(file), kWrite).sentence, HasSubstr("mask takes it away"));
  subject.who.uid.filesystem = 2000006;
  EXPECT_EQ(decide(subject, file, kWrite), "may acl");  // others
  subject.who.groups = {0};
  EXPECT_EQ(decide(subject, file, kRead), "not acl");  // of the owning group: not others any more
  file.mode = S_IFREG | 0600;                          // an empty mask: the list is not asked
  EXPECT_EQ(decide(subject, file, kRead), "not mode");
}

TEST(Open, WhatComesBeforeAndAfterModes) {
  const auto subject = make_subject(2000000, kAnna1, kAll);
  auto file = make_file(2000000, 2000000, 0700);
  file.is_read_only_mount = true;
  EXPECT_EQ(decide(subject, file, kWrite), "not read-only");
  EXPECT_EQ(decide(subject, file, kRead), "may mode");
  file.has_noexec = true;
  EXPECT_EQ(decide(subject, file, kExecute), "not noexec");
  auto immutable = make_file(2000000, 2000000, 0700);
  immutable.is_immutable = true;
  EXPECT_EQ(decide(subject, immutable, kWrite), "not immutable");
  EXPECT_EQ(decide(subject, make_file(2000000, 0, S_IFDIR | 0700), kWrite), "not directory");
  EXPECT_EQ(decide(subject, make_file(2000000, 0, S_IFDIR | 0700), kExecute), "not kind");
  EXPECT_EQ(decide(subject, make_file(2000000, 0, S_IFSOCK | 0700), kRead), "not kind");
}

TEST(Open, Devices) {
  const auto subject = make_subject(2000000, kAnna1, kAll);
  auto file = make_file(0, 0, S_IFCHR | 0666);
  file.is_read_only_mount = true;  // devices do not mind
  EXPECT_EQ(decide(subject, file, kRead | kWrite), "may mode");
  auto facts = make_facts(file);
  facts.has_unread_device_filter = true;
  EXPECT_EQ(judge_open(subject, facts, kRead).answer, Answer::kUnknown);
  facts.is_device_allowed = false;
  EXPECT_EQ(judge_open(subject, facts, kRead).rule, "device-filter");
  EXPECT_EQ(judge_open(subject, facts, kRead).sys_errno, EPERM);
  facts.target->has_nodev = true;
  EXPECT_EQ(judge_open(subject, facts, kRead).rule, "nodev");
}

TEST(Open, DriversOfTheHost) {
  auto root = make_subject(0, kHost, kAll);
  auto facts = make_facts(make_file(0, 0, S_IFCHR | 0666));
  facts.first_ns = kHost;
  facts.target->major = 1;
  facts.target->minor = 11;
  const auto root1 = make_subject(2000000, kAnna1, kAll);
  EXPECT_EQ(judge_open(root1, facts, kRead).answer, Answer::kMay);
  facts.is_log_restricted = true;
  EXPECT_EQ(judge_open(root1, facts, kRead).rule, "driver");
  EXPECT_EQ(judge_open(root1, facts, kWrite).answer, Answer::kMay);
  EXPECT_EQ(judge_open(root, facts, kRead).answer, Answer::kMay);
  facts.target->minor = 1;
  EXPECT_EQ(judge_open(root1, facts, kWrite).sys_errno, EPERM);
  root.who.effective = 0;
  EXPECT_EQ(judge_open(root, facts, kRead).rule, "driver");
}

// What an idmapped mount does not map belongs to nobody, and not even root of the host changes it there.
TEST(Open, UnmappedOwners) {
  const auto root = make_subject(0, kHost, kAll);
  EXPECT_EQ(decide(root, make_file(kNoId, 0, 0600), kRead), "not mode");
  EXPECT_EQ(decide(root, make_file(kNoId, 0, 0606), kRead), "not mode");  // root is of its group
  EXPECT_EQ(decide(root, make_file(kNoId, kNoId, 0606), kRead), "may mode");
  EXPECT_EQ(decide(root, make_file(0, kNoId, 0666), kWrite), "not unmapped");
}

TEST(Open, TheWay) {
  const auto subject = make_subject(2000000, kAnna1, kAll);
  auto facts = make_facts(make_file(2000000, 2000000, 0600));
  facts.way[0].mode = S_IFDIR | 0744;
  EXPECT_EQ(judge_open(subject, facts, kRead).rule, "search");
  facts.way[0].mode = S_IFDIR | S_ISVTX | 0777;
  auto link = make_file(2000001, 2000001, S_IFLNK | 0777);
  facts.way.push_back(link);
  facts.last_links = {1};
  EXPECT_EQ(judge_open(subject, facts, kRead).answer, Answer::kMay);
  facts.has_protected_links = true;
  EXPECT_EQ(judge_open(subject, facts, kRead).rule, "protected-link");
  facts.last_links = {};
  EXPECT_EQ(judge_open(subject, facts, kRead).answer, Answer::kMay);
  facts.target.reset();
  facts.lookup_errno = ENOENT;
  EXPECT_EQ(judge_open(subject, facts, kRead).sys_errno, ENOENT);
  facts.lookup_errno = 0;
  EXPECT_EQ(judge_open(subject, facts, kRead).answer, Answer::kUnknown);
}

TEST(Open, StrictSeccomp) {
  auto subject = make_subject(0, kHost, kAll);
  subject.who.seccomp_mode = 1;
  EXPECT_EQ(decide(subject, make_file(0, 0, 0777), kRead), "not seccomp");
}

TEST(Signal, Rules) {
  const auto host = make_host();
  const auto decide_signal = [&](const Subject& from, const Subject& to, std::optional<bool> is_in_sight = true) {
    return judge_signal(from, host.namespaces, {to, is_in_sight}).rule;
  };
  auto other = make_subject(2100000, kAnna2, kAll);
  other.who.thread_group = 5;
  auto root1 = make_subject(2000000, kAnna1, kAll);
  EXPECT_EQ(decide_signal(root1, root1), "itself");
  EXPECT_EQ(judge_signal(root1, host.namespaces, {other, true}).sys_errno, EPERM);  // row T2
  EXPECT_EQ(decide_signal(root1, other, false), "pid-namespace");
  auto inner = make_subject(2001007, kInner);
  inner.who.thread_group = 6;
  EXPECT_EQ(decide_signal(root1, inner), "capability");
  EXPECT_EQ(decide_signal(inner, root1), "uid");
  // Real and effective of the sender; real and saved of the target.
  auto set_uid = make_subject(0, kHost);
  set_uid.who.thread_group = 7;
  set_uid.who.uid = {1001, 0, 0, 0};
  const auto anna = make_subject(1001, kHost);
  EXPECT_EQ(judge_signal(anna, host.namespaces, {set_uid, true}).answer, Answer::kMay);
  set_uid.who.uid = {0, 1001, 0, 1001};
  EXPECT_EQ(judge_signal(anna, host.namespaces, {set_uid, true}).answer, Answer::kMayNot);
}

TEST(Trace, Rules) {
  const auto host = make_host();
  const auto anna = make_subject(1001, kHost);
  auto target = anna;
  target.who.thread_group = 5;
  TraceFacts facts{{target, true}};
  const auto decide_trace = [&](const Subject& from) {
    const auto verdict = judge_trace(from, host.namespaces, facts);
    return std::string(verdict.answer == Answer::kMay ? "may " : "not ") + verdict.rule;
  };
  EXPECT_EQ(decide_trace(anna), "may uid");
  facts.yama_scope = 1;
  EXPECT_EQ(decide_trace(anna), "not yama");
  facts.is_descendant = true;
  EXPECT_EQ(decide_trace(anna), "may uid");
  facts.yama_scope = 3;
  EXPECT_EQ(decide_trace(make_subject(0, kHost, kAll)), "not yama");
  facts.yama_scope = 2;
  EXPECT_EQ(decide_trace(make_subject(0, kHost, kAll)), "may capability");
  facts.yama_scope.reset();
  facts.undumpable_in = kHost;
  EXPECT_EQ(decide_trace(anna), "not dumpable");
  EXPECT_EQ(decide_trace(make_subject(0, kHost, kAll)), "may capability");
  facts.undumpable_in = 0;
  EXPECT_EQ(judge_trace(anna, host.namespaces, facts).answer, Answer::kUnknown);
  facts.undumpable_in.reset();
  facts.target.target.who.permitted = 1;
  EXPECT_EQ(decide_trace(anna), "not capability");
  facts.target.target.who.has_memory = false;
  EXPECT_EQ(decide_trace(anna), "not kernel");
  facts.target.target = make_subject(2000000, kAnna1, kAll);
  facts.target.target.who.thread_group = 6;
  EXPECT_EQ(decide_trace(anna), "may capability");  // she made that namespace
  EXPECT_EQ(decide_trace(make_subject(1002, kHost)), "not uid");
}

TEST(Mount, Rules) {
  const auto host = make_host();
  const auto root1 = make_subject(2000000, kAnna1, kAll);
  MountFacts facts;
  facts.type = "tmpfs";
  facts.kernel_major = 6;
  facts.kernel_minor = 1;
  facts.first_ns = kHost;
  facts.mount_owner = facts.pid_owner = kAnna1;
  facts.net_owner = kHost;
  const auto decide_mount = [&](const Subject& from, const char* type) {
    facts.type = type;
    const auto verdict = judge_mount(from, host.namespaces, facts);
    return std::string(verdict.answer == Answer::kMay      ? "may "
                       : verdict.answer == Answer::kMayNot ? "not "
                                                           : "? ") +
           verdict.rule;
  };
  EXPECT_EQ(decide_mount(root1, "tmpfs"), "may capability");
  EXPECT_EQ(decide_mount(root1, "ext4"), "not filesystem");
  EXPECT_EQ(decide_mount(root1, "sysfs"), "not owner");  // of the host's network
  EXPECT_EQ(decide_mount(root1, "mqueue"), "? visibility");
  EXPECT_EQ(decide_mount(root1, "proc"), "? visibility");
  facts.has_whole_view = false;
  EXPECT_EQ(decide_mount(root1, "proc"), "not revealing");
  facts.has_whole_view = true;
  EXPECT_EQ(decide_mount(root1, "proc"), "may capability");
  EXPECT_EQ(decide_mount(root1, "binfmt_misc"), "not filesystem");
  facts.kernel_minor = 7;
  EXPECT_EQ(decide_mount(root1, "binfmt_misc"), "may capability");
  EXPECT_EQ(decide_mount(make_subject(2000001, kAnna1), "tmpfs"), "not mount-namespace");
  facts.mount_owner = kHost;
  EXPECT_EQ(decide_mount(root1, "tmpfs"), "not mount-namespace");
  EXPECT_EQ(decide_mount(make_subject(0, kHost, kAll), "ext4"), "may capability");
  facts.is_known = false;
  EXPECT_EQ(decide_mount(make_subject(0, kHost, kAll), "nofs"), "not unknown");
}

TEST(Bind, Rules) {
  const auto host = make_host();
  const auto root1 = make_subject(2000000, kAnna1, kAll);
  const auto decide_bind = [&](std::uint32_t port, std::optional<NamespaceId> owner) {
    return judge_bind(root1, host.namespaces, {port, 1024, owner});
  };
  EXPECT_EQ(decide_bind(80, kAnna1).answer, Answer::kMay);
  EXPECT_EQ(decide_bind(80, kHost).sys_errno, EACCES);  // row T16: power only over what one's namespace owns
  EXPECT_EQ(decide_bind(1024, kHost).answer, Answer::kMay);
  EXPECT_EQ(decide_bind(0, kHost).answer, Answer::kMay);
  EXPECT_EQ(decide_bind(80, std::nullopt).answer, Answer::kUnknown);
  EXPECT_EQ(judge_bind(root1, host.namespaces, {8080, std::nullopt, kAnna1}).answer, Answer::kUnknown);
}

TEST(Verdict, IsPrintedWithoutControlCharacters) {
  auto verdict = may_not("mode", EACCES, "no\x1b[1m");
  verdict.facts = {"process 1 'a\n'"};
  EXPECT_EQ(format_verdict(verdict), "may not: no\\x1b[1m (mode, EACCES)\n  process 1 'a\\x0a'\n");
  EXPECT_THAT(format_verdict_json(verdict), HasSubstr("\"errno\": \"EACCES\""));
}

}  // namespace
}  // namespace virtuserns::showinfo
