#include "driver/rpc/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <string>
#include <thread>

namespace virtuserns::rpc {
namespace {

using namespace std::chrono_literals;

TEST(Workers, HighJobsRunWhileTheLowLaneIsFull) {
  Workers workers({1, 2, 1, 1});
  ASSERT_TRUE(workers.start());
  std::promise<void> gate, high_ran;
  const std::shared_future<void> opened(gate.get_future());
  for (int i = 0; i < 5; ++i) workers.submit(Lane::kLow, 0, [opened] { opened.wait(); });
  workers.submit(Lane::kHigh, 0, [&] { high_ran.set_value(); });
  EXPECT_EQ(high_ran.get_future().wait_for(5s), std::future_status::ready);
  gate.set_value();
}

TEST(Workers, UsersTakeTurns) {
  Workers workers({1, 1, 1, 1});
  std::mutex mutex;
  std::string order;
  const auto job = [&](char who) {
    return [&, who] {
      const std::lock_guard lock(mutex);
      order += who;
    };
  };
  std::promise<void> gate, begun, done;
  ASSERT_TRUE(workers.start());
  workers.submit(Lane::kLow, 1, [&, opened = gate.get_future().share()] {
    begun.set_value();
    opened.wait();
  });
  begun.get_future().wait();
  for (int i = 0; i < 5; ++i) workers.submit(Lane::kLow, 1, job('a'));
  workers.submit(Lane::kLow, 2, job('b'));
  workers.submit(Lane::kLow, 3, job('c'));
  for (int i = 0; i < 2; ++i)
    workers.submit(Lane::kLow, 1, i == 1 ? Workers::Job([&] { done.set_value(); }) : Workers::Job(job('a')));
  gate.set_value();
  done.get_future().wait();
  EXPECT_EQ(order.substr(0, 3), "bca");
}

TEST(Workers, GrowToTheMaximumAndNoFurther) {
  Workers workers({1, 3, 1, 1});
  ASSERT_TRUE(workers.start());
  std::promise<void> gate;
  const std::shared_future<void> opened(gate.get_future());
  std::atomic<int> running{0};
  for (int i = 0; i < 8; ++i)
    workers.submit(Lane::kLow, 0, [&running, opened] {
      ++running;
      opened.wait();
    });
  for (int i = 0; i < 200 && running < 3; ++i) std::this_thread::sleep_for(5ms);
  std::this_thread::sleep_for(30ms);
  EXPECT_EQ(running, 3);
  gate.set_value();
  workers.stop();
}

TEST(Workers, StopDropsWhatWaits) {
  std::atomic<int> ran{0};
  {
    Workers workers({1, 1, 1, 1});
    ASSERT_TRUE(workers.start());
    std::promise<void> begun;
    workers.submit(Lane::kLow, 0, [&] {
      begun.set_value();
      std::this_thread::sleep_for(20ms);
      ++ran;
    });
    begun.get_future().wait();
    for (int i = 0; i < 10; ++i) workers.submit(Lane::kLow, 0, [&] { ++ran; });
  }
  EXPECT_EQ(ran, 1);
}

}  // namespace
}  // namespace virtuserns::rpc
