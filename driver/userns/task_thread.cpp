#include "driver/userns/task_thread.h"

namespace virtuserns::userns {

void TaskThread::start() {
  thread_ = std::thread([this] { run(); });
}

bool TaskThread::submit(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (is_stopping_) return false;
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
  return true;
}

void TaskThread::submit_later(std::chrono::milliseconds pause, std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (is_stopping_) return;
    later_.emplace(Clock::now() + pause, std::move(task));
  }
  changed_.notify_one();
}

void TaskThread::stop(Rest rest) {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    later_.clear();
    if (rest == Rest::kDrop) tasks_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void TaskThread::run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      for (;;) {
        while (!later_.empty() && later_.begin()->first <= Clock::now())
          tasks_.push_back(std::move(later_.extract(later_.begin()).mapped()));
        if (is_stopping_ || !tasks_.empty()) break;
        if (later_.empty()) {
          changed_.wait(lock);
        } else {
          const auto next = later_.begin()->first;
          changed_.wait_until(lock, next);
        }
      }
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace virtuserns::userns
