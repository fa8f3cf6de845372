// Where a root test runs: in mount and network namespaces of its own.
#pragma once

#include <cstdlib>

namespace virtuserns::test {

// tests/support/leak_check.py has made them, and looks into them when the program has ended.
[[nodiscard]] inline bool is_in_test_machine() { return std::getenv("VIRTUSERNS_TEST_MACHINE") != nullptr; }

}  // namespace virtuserns::test
