// The drill's reading of what a container says, its verdict, and its eyes on a process that is in no container.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tools/drill/outside.h"
#include "tools/drill/report.h"

namespace virtuserns::drill {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(Finding, ReadsWhatIsWrittenAndNothingElse) {
  const Finding written{'D', "call_bpf", false, Outcome::kFailed, "the kernel was reached: E2BIG"};
  Finding read;
  ASSERT_TRUE(read_finding("D call_bpf failed the kernel was reached: E2BIG", read));
  EXPECT_EQ(write_finding(read), write_finding(written));
  ASSERT_TRUE(read_finding("A streams held", read));
  EXPECT_EQ(read.detail, "");
  for (const char* line : {"", "A", "A name", "G name held x", "AB name held x", "A Name held x", "A n\"me held x",
                           "A ../x held x", "A name FAILED x", "A  held x", " A name held"})
    EXPECT_FALSE(read_finding(line, read)) << line;
  EXPECT_FALSE(read_finding("A " + std::string(65, 'a') + " held x", read));
  ASSERT_TRUE(read_finding("A name held \x1b[2J\xff" + std::string(10'000, 'x'), read));
  EXPECT_LT(read.detail.size(), 500u);
  EXPECT_EQ(read.detail.find('\x1b'), std::string::npos);
}

Report make_report() {
  Report report;
  report.subject = "domain 'web'";
  report.name = "we\"b";
  report.uuid = "0f0e0d0c-0b0a-4908-8706-050403020100";
  report.uri = "userns:///system";
  report.findings = {{'A', "streams", false, Outcome::kHeld, "no\ndirectory \"\\\x01"},
                     {'D', "write_mtrr", false, Outcome::kNotApplicable, "none"},
                     {'F', "serial_lines", false, Outcome::kNotRun, "what hangs on it"}};
  return report;
}

TEST(Report, SaysThatAllHolds) {
  const auto report = make_report();
  EXPECT_FALSE(has_failed(report));
  EXPECT_THAT(
      format_text(report, false),
      StartsWith("domain 'web': ISOLATED. All 1 walls that could be tried hold; 1 do not apply to this machine; 1 "
                 "were left out (--all tries them).\n"));
  const auto document = nlohmann::json::parse(format_json(report));
  EXPECT_EQ(document["verdict"], "held");
  EXPECT_EQ(document["domain"]["name"], "we\"b");
  EXPECT_EQ(document["checks"][0]["detail"], "no\ndirectory \"\\\x01");
  EXPECT_EQ(document["counts"]["not_run"], 1);
  EXPECT_EQ(document["classes"].size(), 6u);
  EXPECT_FALSE(document["checks"][0].contains("remedy"));
}

TEST(Report, NamesEachFailureAndWhatToDo) {
  auto report = make_report();
  report.findings.push_back({'C', "capability_sys_time", false, Outcome::kFailed, "is in the bounding set"});
  report.findings.push_back({'B', "umount_walls", false, Outcome::kFailed, "unmounted /proc"});
  EXPECT_TRUE(has_failed(report));
  const auto text = format_text(report, false);
  EXPECT_THAT(text, StartsWith("domain 'web': NOT ISOLATED. 2 of 3 walls are missing"));
  EXPECT_THAT(text,
              HasSubstr("FAILED capability_sys_time (C): is in the bounding set\n    remove this capability's"));
  EXPECT_THAT(text,
              HasSubstr("FAILED umount_walls (B): unmounted /proc\n    nothing in a definition opens this wall"));
  const auto document = nlohmann::json::parse(format_json(report));
  EXPECT_EQ(document["verdict"], "failed");
  EXPECT_EQ(document["classes"][2]["failed"], 1);
  EXPECT_THAT(document["checks"][4]["remedy"].get<std::string>(), StartsWith("nothing in a definition"));
}

// The longest beginning counts: what init's environment needs is not what a command's needs.
TEST(Report, RemediesAreOfTheCheckItself) {
  EXPECT_THAT(remedy_of({'D', "call32_keyctl", false, Outcome::kFailed, ""}), HasSubstr("<userns:allow>"));
  EXPECT_THAT(remedy_of({'C', "clone_user_namespace", false, Outcome::kFailed, ""}), HasSubstr("nesting"));
  EXPECT_THAT(remedy_of({'A', "environment_of_init", false, Outcome::kFailed, ""}), HasSubstr("<initenv>"));
}

// Of ourselves, who are in no container: whatever wall is looked for is not there. Run by whoever runs the tests.
TEST(Outside, SeesThatWeAreInNoContainer) {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  std::getline(groups, line);
  // As if this were the name of a domain's group: the supervisor is then in it.
  const std::string own = line.substr(line.rfind('/'));
  const auto seen = look_from_outside({::getpid(), {::getpid()}, own});
  ASSERT_TRUE(seen) << seen.error().text;
  std::string held;
  for (const auto& finding : *seen) {
    EXPECT_TRUE(finding.is_outside);
    if (finding.outcome != Outcome::kFailed) held += finding.name + " ";
  }
  EXPECT_EQ(seen->size(), 17u);
  // What depends on who runs this: inherited capabilities, groups, limits and variables, a user namespace of their own.
  for (const char* name : {"outside_root", "outside_namespaces", "supervisor_groups", "supervisor_namespaces"})
    EXPECT_EQ(held.find(name), std::string::npos) << held;
}

TEST(Outside, AProcessWithoutAContainerHasNoInit) {
  const auto found = find_subject(::getpid(), "");
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().text, HasSubstr("has no container"));
}

TEST(Outside, AProcessThatIsGoneIsNoProof) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  const auto seen = look_from_outside({child, {}, ""});
  ASSERT_TRUE(seen);
  for (const char* name : {"outside_uid_map", "outside_filter", "outside_namespaces", "outside_root"})
    EXPECT_TRUE(std::any_of(seen->begin(), seen->end(), [&](const auto& finding) {
      return finding.name == name && finding.outcome == Outcome::kFailed;
    })) << name;
}

}  // namespace
}  // namespace virtuserns::drill
