// main() of the root tests: exit 77 with the reason when they cannot run here (Meson then says "skipped").
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdio>

#include "tests/support/controller_run.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (const std::string reason = virtuserns::test::enter_test_machine(); !reason.empty()) {
    std::printf("skipped: %s\n", reason.c_str());
    return 77;
  }
  const int status = RUN_ALL_TESTS();
  // The parents of the domains' groups, which controllers keep.
  for (const auto& step : virtuserns::test::all_cgroups("x"))
    ::rmdir((step.mount + "/" + step.path.substr(0, step.path.find('/'))).c_str());
  return status;
}
