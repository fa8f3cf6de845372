// main() of the root tests: exit 77 with the reason when they cannot run here (Meson then says "skipped").
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/support/controller_run.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (const std::string reason = virtuserns::test::enter_test_machine(); !reason.empty()) {
    std::printf("skipped: %s\n", reason.c_str());
    return 77;
  }
  return RUN_ALL_TESTS();
}
