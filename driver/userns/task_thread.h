// One thread that does what is given to it, one after the other.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace virtuserns::userns {

class TaskThread {
 public:
  TaskThread() = default;
  ~TaskThread() { stop(); }
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;

  void start();
  // False after stop(): nobody does it any more.
  bool submit(std::function<void()> task);
  // Not before `pause`; dropped by stop().
  void submit_later(std::chrono::milliseconds pause, std::function<void()> task);
  // Returns when everything submitted is done, or (kDrop) only what has begun.
  enum class Rest { kDo, kDrop };
  void stop(Rest rest = Rest::kDo);

 private:
  using Clock = std::chrono::steady_clock;
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::multimap<Clock::time_point, std::function<void()>> later_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace virtuserns::userns
