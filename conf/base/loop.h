// Loop: one thread that waits for descriptors, timers and signals, and runs what other threads post to it.
//
// epoll + one timerfd + one signalfd + one eventfd. All functions but post() and quit() belong to the thread that
// runs the loop (or to the one that sets it up before run()). Callbacks may add and remove anything, themselves too.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns {

class Loop {
 public:
  using Task = std::function<void()>;
  using Ready = std::function<void(std::uint32_t events)>;  // EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR...
  using TimerId = std::uint64_t;

  [[nodiscard]] static Result<std::unique_ptr<Loop>> create();

  // The descriptor stays the caller's; remove it before it is closed.
  [[nodiscard]] Result<void> add(int fd, std::uint32_t events, Ready ready);
  void modify(int fd, std::uint32_t events);
  void remove(int fd);

  // Once, after `delay_ms` of CLOCK_MONOTONIC (steps of the wall clock do not matter). 0 is never a timer's id.
  TimerId add_timer(std::uint64_t delay_ms, Task task);
  void cancel_timer(TimerId id);

  // Blocks `signo` in this thread (call it before any other thread is made) and runs `task` when it arrives.
  [[nodiscard]] Result<void> on_signal(int signo, Task task);

  void post(Task task);  // any thread
  void quit();           // any thread: run() returns after the callbacks at hand
  void run();

  [[nodiscard]] static std::uint64_t now_ms();  // CLOCK_MONOTONIC

 private:
  Loop() = default;
  void run_posted();
  void run_timers();
  void read_signals();
  void arm_timer();

  Fd epoll_, timer_, wake_, signals_;
  struct Watch {
    std::uint32_t generation;
    std::shared_ptr<Ready> ready;
  };
  std::unordered_map<int, Watch> watches_;
  std::uint32_t next_generation_ = 1;
  std::map<std::pair<std::uint64_t, TimerId>, Task> timers_;  // (deadline, id)
  std::unordered_map<TimerId, std::uint64_t> deadlines_;
  TimerId next_timer_ = 1;
  std::map<int, Task> signal_tasks_;

  std::mutex mutex_;  // guards what follows
  std::vector<Task> posted_;
  bool is_quitting_ = false;
};

}  // namespace virtuserns
