#include "conf/base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "conf/base/undo.h"

namespace virtuserns {
namespace {

Result<std::unique_ptr<int>> half(int n) {
  if (n % 2) return fail(VIR_ERR_INVALID_ARG, "odd");
  return std::make_unique<int>(n / 2);
}

Result<int> quarter(int n) {
  const auto once = TRY(half(n), "first half");
  const auto twice = TRY(half(*once));
  return *twice;
}

TEST(Result, CarriesValueOrErrorWithContext) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(3).error().text, "first half: odd");
  EXPECT_EQ(quarter(2).error().text, "odd");
  EXPECT_EQ(quarter(2).error().code, VIR_ERR_INVALID_ARG);
}

TEST(Undo, RunsNewestFirstUnlessCommitted) {
  std::vector<int> order;
  {
    Undo undo;
    undo.add([&] { order.push_back(1); });
    undo.add([&] { order.push_back(2); });
  }
  EXPECT_EQ(order, (std::vector<int>{2, 1}));
  {
    Undo undo;
    undo.add([&] { order.push_back(3); });
    undo.commit();
  }
  EXPECT_EQ(order.size(), 2U);
}

}  // namespace
}  // namespace virtuserns
