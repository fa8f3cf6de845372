#include "driver/userns/task_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>

using namespace virtuserns::userns;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

TEST(TaskThread, LaterTasksComeInTheirOrderAndHoldUpNobody) {
  TaskThread thread;
  thread.start();
  std::mutex mutex;
  std::string order;
  const auto note = [&](char what) {
    return [&order, &mutex, what] {
      const std::lock_guard lock(mutex);
      order += what;
    };
  };
  const auto begin = Clock::now();
  std::atomic<Clock::duration> took{};
  thread.submit_later(milliseconds(80), [&, last = note('c')] {
    last();
    took = Clock::now() - begin;
  });
  thread.submit_later(milliseconds(40), note('b'));
  ASSERT_TRUE(thread.submit(note('a')));
  for (int i = 0; i < 5000 && took.load() == Clock::duration::zero(); ++i)
    std::this_thread::sleep_for(milliseconds(1));
  EXPECT_GE(took.load(), milliseconds(80));
  thread.stop();
  EXPECT_EQ(order, "abc");
}

TEST(TaskThread, StopDoesWhatIsDueAndDropsWhatIsNot) {
  TaskThread thread;
  thread.start();
  std::atomic<int> done = 0;
  thread.submit_later(std::chrono::hours(1), [&] { done += 100; });
  ASSERT_TRUE(thread.submit([&] { ++done; }));
  thread.stop();
  EXPECT_EQ(done, 1);
  EXPECT_FALSE(thread.submit([&] { ++done; }));
  thread.submit_later(milliseconds(0), [&] { ++done; });
  EXPECT_EQ(done, 1);
}
