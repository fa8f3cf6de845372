#include "tools/convert/job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "conf/base/file.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::convert {
namespace {

JobState some_state() {
  JobState state;
  state.phase = Phase::kConverted;
  state.mode = Mode::kTree;
  state.uri = "userns:///system";
  state.domain_uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
  state.source_xml = "<domain type='kvm'>\n</domain>";
  state.disks.push_back({"vda", {{"/images/a.qcow2", "qcow2", 12, 1u << 20, 1700000000, 999}}});
  Placed place;
  place.target = "/";
  place.subvolume = "@";
  place.volume = {"vda", 1048576, 4096, "ext4", "u", "l", "vda1", "pu", "pl", 1};
  state.places.push_back(place);
  return state;
}

TEST(Job, StateComesBack) {
  const auto state = some_state();
  const auto read = parse_state(format_state(state));
  ASSERT_TRUE(read) << read.error().text;
  EXPECT_EQ(*read, state);
}

TEST(Job, AMachineThatRanComesBack) {
  auto state = some_state();
  state.live = {"qemu:///system", state.domain_uuid, "web1", {{"vda", "/images/web1.qcow2.cutover"}}, true, 120};
  const auto read = parse_state(format_state(state));
  ASSERT_TRUE(read) << read.error().text;
  EXPECT_EQ(*read, state);
  // What is removed later is named by it.
  for (const auto& [whole, damaged] :
       {std::pair{"/images/web1.qcow2.cutover", "images"}, std::pair{"\"is_stopped\": true", "\"is_stopped\": 1"},
        std::pair{"\"target\": \"vda\"", "\"target\": \"\""}}) {
    auto text = format_state(state);
    const auto at = text.rfind(whole);
    ASSERT_NE(at, std::string::npos) << whole;
    text.replace(at, std::string(whole).size(), damaged);
    EXPECT_FALSE(parse_state(text)) << text;
  }
}

TEST(Job, StateThatIsNoneIsRefused) {
  for (const auto* text : {"", "[]", "{}", "{\"version\":2}", "{\"version\":1,\"phase\":\"x\",\"mode\":\"tree\"}",
                           "{\"version\":1,\"phase\":3,\"mode\":[]}",
                           "{\"version\":1,\"phase\":\"converted\",\"mode\":\"tree\",\"disks\":[1]}"})
    EXPECT_FALSE(parse_state(text)) << text;
}

TEST(Job, IsOneAtATimeAndGoesWhole) {
  const test::TempDir dir;
  auto job = Job::create(dir.path(), "web", some_state());
  ASSERT_TRUE(job) << job.error().text;
  EXPECT_EQ(Job::open(dir.path(), "web").error().code, VIR_ERR_RESOURCE_BUSY);
  EXPECT_FALSE(Job::create(dir.path(), "web", {}));
  ASSERT_TRUE(write_atomic(job->path("root.img"), "x"));
  ASSERT_EQ(::mkdir(job->path("root").c_str(), 0700), 0);
  ASSERT_TRUE(job->remove());
  EXPECT_TRUE(list_directory(dir.path())->empty());
  EXPECT_EQ(Job::open(dir.path(), "web").error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_TRUE(list_directory(dir.path())->empty());
}

TEST(Job, OneThatDiedBeforeItsFirstStateIsThatState) {
  const test::TempDir dir;
  ASSERT_EQ(::mkdir((dir.path() + "/web").c_str(), 0700), 0);
  auto job = Job::open(dir.path(), "web");
  ASSERT_TRUE(job) << job.error().text;
  EXPECT_EQ(job->state(), JobState{});
  EXPECT_TRUE(job->remove());
}

TEST(Job, NamesAreNoPaths) {
  for (const auto* name : {"", ".", "..", ".x", "a/b", "../x", "a\nb"}) EXPECT_FALSE(check_job_name(name)) << name;
  EXPECT_FALSE(check_job_name(std::string(201, 'a')));
  EXPECT_TRUE(check_job_name("web-1.example"));
}

}  // namespace
}  // namespace virtuserns::convert
