// Root filesystems made to lead the set-up astray (F34): the canary outside is never touched, nothing hangs, and what
// cannot be used is an error that names the path.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

class Hostile : public ::testing::Test {
 protected:
  Hostile() {
    std::filesystem::create_directories(canary_);
    std::ofstream(canary_ + "/file") << "canary";
  }
  void replace(const std::string& name, const std::string& target) const {
    std::filesystem::remove_all(tree_.path() + "/" + name);
    std::filesystem::create_symlink(target, tree_.path() + "/" + name);
  }
  void expect_error(const std::string& text) {
    const auto before = snapshot();
    Domain domain(make_plan_for(tree_, "sleep 1000"));
    const auto note = domain.start();
    ASSERT_TRUE(note) << note.error().text;
    const auto* failed = std::get_if<FailedNote>(&*note);
    ASSERT_TRUE(failed);
    EXPECT_NE(failed->error.text.find(text), std::string::npos) << failed->error.text;
    EXPECT_TRUE(domain.wait_controller());
    EXPECT_EQ(snapshot(), before);
    expect_canary();
  }
  void expect_canary() const {
    std::ifstream in(canary_ + "/file");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "canary");
    int entries = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(canary_)) ++entries;
    EXPECT_EQ(entries, 1);
  }
  RootTree tree_;
  std::string canary_ = tree_.temp() + "/canary";
};

TEST_F(Hostile, DevProcAndSysAreLinks) {
  for (const char* name : {"dev", "proc", "sys"}) {
    for (const std::string& target :
         {canary_, std::string("/../../../../../..") + canary_, std::string("."), std::string("/tmp")}) {
      SCOPED_TRACE(name + std::string(" -> ") + target);
      replace(name, target);
      expect_error("'/" + std::string(name) + "' of the container: a symbolic link is in the way");
    }
    std::filesystem::remove(tree_.path() + "/" + name);
    std::filesystem::create_directories(tree_.path() + "/" + name);
  }
}

TEST_F(Hostile, FifosAndFilesWhereDirectoriesBelong) {
  std::filesystem::remove_all(tree_.path() + "/sys");
  ASSERT_EQ(::mkfifo((tree_.path() + "/sys").c_str(), 0666), 0);
  expect_error("'/sys' of the container: Not a directory");
  std::filesystem::remove_all(tree_.path() + "/sys");
  tree_.write("sys", "");
  expect_error("'/sys' of the container: Not a directory");
}

TEST_F(Hostile, WhatIsInTheImagesDevIsCovered) {
  replace("dev/null", canary_ + "/file");
  replace("dev/console", canary_ + "/file");
  replace("dev/pts", canary_);
  Domain domain(make_plan_for(tree_, "echo x > /dev/null; echo x > /dev/console; echo > /out/done; sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(wait_for(tree_, "out/done"));
  expect_canary();
}

TEST_F(Hostile, LinksInTheWayOfBindsStayInside) {
  replace("etc/data", canary_);
  replace("mnt", "/../../../../../../../../../../tmp");
  std::filesystem::create_directories(tree_.temp() + "/data");
  std::ofstream(tree_.temp() + "/data/here") << "x";
  auto plan = make_plan_for(tree_, "ls /tmp/sub > /out/sub; echo > /out/done; sleep 1000");
  plan.before.emplace_back(SourceStep{2, tree_.temp() + "/data", false, false});
  plan.from_parent.emplace_back(BindStep{2, "/mnt/sub", OwnerShift::kIdmappedMount, false});
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(wait_for(tree_, "out/done"));
  EXPECT_EQ(tree_.read("out/sub"), "here\n");
  expect_canary();
  // A link to a place outside dangles inside: an error, not the host's directory.
  auto other = make_plan_for(tree_, "sleep 1000");
  other.before.emplace_back(SourceStep{2, tree_.temp() + "/data", false, false});
  other.from_parent.emplace_back(BindStep{2, "/etc/data", OwnerShift::kIdmappedMount, false});
  Domain second(std::move(other));
  const auto refused = second.start_ok();
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text.find("/etc/data"), std::string::npos) << refused.error().text;
  expect_canary();
}

TEST_F(Hostile, LinksToProcSysAndDevAreNoTargets) {
  const auto plan_for = [&](const std::string& target) {
    auto plan = make_plan_for(tree_, "echo > /out/done; sleep 1000");
    plan.from_parent.emplace_back(TmpfsStep{target, 65536, 0755, false});
    return plan;
  };
  const std::pair<const char*, const char*> cases[] = {
      {"/proc", "/proc"}, {"../../proc/sys", "/proc/sys"}, {"/sys/firmware", "/sys/firmware"},
      {"dev", "/dev"},    {"/dev/pts", "/dev/pts"},        {"/", "/"}};
  for (const auto& [link, where] : cases) {
    SCOPED_TRACE(link);
    replace("data", link);
    Domain domain(plan_for("/data"));
    const auto boot = domain.start_ok();
    ASSERT_FALSE(boot);
    EXPECT_EQ(boot.error().code, VIR_ERR_CONFIG_UNSUPPORTED);
    EXPECT_NE(
        boot.error().text.find("tmpfs '/data': the target leads to '" + std::string(where) + "' of the container"),
        std::string::npos)
        << boot.error().text;
  }
  // Also in the middle of a path, and by a path that the daemon would not have let through.
  replace("data", "/");
  for (const char* target : {"/data/proc", "/proc/acpi", "/data/sys/kernel"}) {
    SCOPED_TRACE(target);
    Domain domain(plan_for(target));
    const auto boot = domain.start_ok();
    ASSERT_FALSE(boot);
    EXPECT_NE(boot.error().text.find("would be covered"), std::string::npos) << boot.error().text;
  }
  replace("data", "/dev");
  Domain domain(plan_for("/data/hugepages"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  EXPECT_TRUE(wait_for(tree_, "out/done"));
}

TEST_F(Hostile, PasswdIsNoFile) {
  std::filesystem::remove(tree_.path() + "/etc/passwd");
  ASSERT_EQ(::mkfifo((tree_.path() + "/etc/passwd").c_str(), 0666), 0);
  const auto expect = [&](const UserStep& user, const std::string& text) {
    auto plan = make_plan_for(tree_, "echo > /out/done; sleep 1000");
    plan.inside.insert(plan.inside.end() - 1, user);
    Domain domain(std::move(plan));
    const auto boot = domain.start_ok();
    if (text.empty()) {
      ASSERT_TRUE(boot) << boot.error().text;
      return;
    }
    ASSERT_FALSE(boot);
    EXPECT_NE(boot.error().text.find(text), std::string::npos) << boot.error().text;
  };
  expect({"web", ""},
         "inituser 'web' cannot be looked up in the container: open '/etc/passwd': not a regular file; ");
  expect({"+1000", ""}, "");
  std::filesystem::remove(tree_.path() + "/etc/passwd");
  expect({"web", ""}, "no user 'web'");
  tree_.write("etc/passwd", "web:x:1000:1000::/:/bin/sh\n");
  expect({"web", ""}, "");
  std::filesystem::resize_file(tree_.path() + "/etc/passwd", std::uintmax_t{1} << 32);
  expect({"web", ""}, "read '/etc/passwd': larger than 4194304 bytes; ");
  std::filesystem::remove(tree_.path() + "/etc/passwd");
  std::filesystem::remove(tree_.path() + "/etc/group");
  std::filesystem::create_directories(tree_.path() + "/etc/group");
  expect({"", "web"},
         "initgroup 'web' cannot be looked up in the container: open '/etc/group': not a regular file; ");
}

// Init still has directories of the host open when it is in the container's tree; none of them may be where it looks a name up.
TEST_F(Hostile, EtcLeadsToWhatInitHasOpen) {
  std::ofstream(canary_ + "/passwd") << "web:x:1000:1000::/:/bin/sh\n";
  // Readable to the container's ids, so that only the way there can be missing.
  for (const auto& folder : {tree_.temp(), canary_})
    std::filesystem::permissions(folder, std::filesystem::perms{0755});
  for (int fd = 3; fd < 40; ++fd) {
    replace("etc", "/proc/self/fd/" + std::to_string(fd) + "/../../../../../../.." + canary_);
    auto plan = make_plan_for(tree_, "sleep 1000");
    plan.inside.insert(plan.inside.end() - 1, UserStep{"web", ""});
    Domain domain(std::move(plan));
    EXPECT_FALSE(domain.start_ok()) << "descriptor " << fd;
  }
}

}  // namespace
}  // namespace virtuserns::test
