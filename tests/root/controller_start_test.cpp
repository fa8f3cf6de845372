// A start as a whole: what init gets, who owns its namespaces, what comes back, what is left.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "driver/kernel/clone.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

TEST(ControllerStart, RunsInitAndTellsHowItEnded) {
  RootTree tree;
  const auto before = snapshot();
  Domain domain(make_plan_for(tree, "echo hello > /out/hello; exit 3"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  EXPECT_GT(boot->init_pid, 0);
  EXPECT_EQ(boot->boots, 1u);
  const auto note = domain.next_note();
  ASSERT_TRUE(note) << note.error().text;
  const auto& ended = std::get<EndedNote>(*note);
  EXPECT_EQ(ended.record.cause, ExitCause::kExited);
  EXPECT_EQ(ended.record.wait_status, 3 << 8);
  EXPECT_EQ(ended.record.error, "");
  EXPECT_TRUE(domain.wait_controller());
  EXPECT_EQ(tree.read("out/hello"), "hello\n");
  EXPECT_EQ(snapshot(), before);
  EXPECT_FALSE(std::filesystem::exists(domain.plan().stage_path));
  EXPECT_FALSE(std::filesystem::exists(domain.plan().socket_path));
  const auto bytes = read_file(domain.plan().exit_record_path);
  ASSERT_TRUE(bytes);
  const auto record = xdr::decode_exact<ExitRecord>(std::span(reinterpret_cast<const std::uint8_t*>(bytes->data()), bytes->size()));
  ASSERT_TRUE(record);
  EXPECT_EQ(record->wait_status, 3 << 8);
}

}  // namespace
}  // namespace virtuserns::test
