#include "driver/compute/thaws.h"

#include <algorithm>

namespace virtuserns::compute {
namespace {

constexpr auto kAgain = std::chrono::seconds(1);

}  // namespace

Thaws::Thaws(std::function<void(const std::string&)> thaw) : thaw_(std::move(thaw)), thread_([this] { run(); }) {}

Thaws::~Thaws() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Thaws::expect(const std::string& uuid, std::chrono::steady_clock::time_point when) {
  const std::lock_guard lock(mutex_);
  due_[uuid] = {when, false};
  changed_.notify_all();
}

void Thaws::forget(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  due_.erase(uuid);
}

bool Thaws::is_expected(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  return due_.contains(uuid);
}

bool Thaws::is_overdue(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  const auto found = due_.find(uuid);
  return found != due_.end() && found->second.has_come;
}

void Thaws::run() {
  std::unique_lock lock(mutex_);
  while (!is_ending_) {
    const auto first = std::min_element(due_.begin(), due_.end(),
                                        [](const auto& a, const auto& b) { return a.second.next < b.second.next; });
    if (first == due_.end()) {
      changed_.wait(lock);
      continue;
    }
    const auto uuid = first->first;
    const auto now = std::chrono::steady_clock::now();
    if (const auto next = first->second.next; now < next) {
      changed_.wait_until(lock, next);
      continue;
    }
    first->second = {now + kAgain, true};
    lock.unlock();
    thaw_(uuid);
    lock.lock();
  }
}

}  // namespace virtuserns::compute
