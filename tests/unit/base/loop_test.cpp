#include "conf/base/loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <thread>
#include <vector>

namespace virtuserns {
namespace {

TEST(Loop, TimersRunInOrderAndCanBeCancelled) {
  const auto loop = Loop::create().value();
  std::string order;
  loop->add_timer(20, [&] { order += 'b'; });
  loop->add_timer(1, [&] { order += 'a'; });
  const auto cancelled = loop->add_timer(10, [&] { order += 'x'; });
  loop->cancel_timer(cancelled);
  loop->add_timer(40, [&] { loop->quit(); });
  loop->run();
  EXPECT_EQ(order, "ab");
}

TEST(Loop, PostsFromOtherThreadsRunInOrder) {
  const auto loop = Loop::create().value();
  std::vector<int> seen;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) loop->post([&, i] { seen.push_back(i); });
    loop->quit();
  });
  loop->run();
  other.join();
  ASSERT_EQ(seen.size(), 1000U);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST(Loop, CallbacksMayRemoveThemselvesAndOthers) {
  const auto loop = Loop::create().value();
  int ends[2], others[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  ASSERT_EQ(::pipe2(others, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd a(ends[0]), b(ends[1]), c(others[0]), d(others[1]);
  ASSERT_EQ(::write(b.get(), "x", 1), 1);
  ASSERT_EQ(::write(d.get(), "x", 1), 1);
  int calls = 0;
  const auto once = [&](std::uint32_t) {  // both are ready: only one may run
    ++calls;
    loop->remove(a.get());
    loop->remove(c.get());
    loop->add_timer(10, [&] { loop->quit(); });
  };
  ASSERT_TRUE(loop->add(a.get(), EPOLLIN, once));
  ASSERT_TRUE(loop->add(c.get(), EPOLLIN, once));
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST(Loop, Signals) {
  const auto loop = Loop::create().value();
  int hups = 0;
  ASSERT_TRUE(loop->on_signal(SIGHUP, [&] { ++hups; }));
  ASSERT_TRUE(loop->on_signal(SIGUSR1, [&] { loop->quit(); }));
  ::kill(::getpid(), SIGHUP);
  ::kill(::getpid(), SIGUSR1);
  loop->run();
  EXPECT_EQ(hups, 1);
}

}  // namespace
}  // namespace virtuserns
