// Who froze an instance may die before he thaws it: then this does.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace virtuserns::compute {

// Thread-safe.
class Thaws {
 public:
  // `thaw` is called by a thread of this class, with the uuid; it does not wait for anybody, since all who are frozen wait for it. Whoever it
  // does not forget is its to thaw again a second later.
  explicit Thaws(std::function<void(const std::string&)> thaw);
  ~Thaws();  // without thawing what is not due
  Thaws(const Thaws&) = delete;
  Thaws& operator=(const Thaws&) = delete;

  // In place of an earlier time of the same instance.
  void expect(const std::string& uuid, std::chrono::steady_clock::time_point when);
  void forget(const std::string& uuid);
  [[nodiscard]] bool is_expected(const std::string& uuid);
  // Its time has come, and nobody has put it off since.
  [[nodiscard]] bool is_overdue(const std::string& uuid);

 private:
  void run();

  std::function<void(const std::string&)> thaw_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Due {
    std::chrono::steady_clock::time_point next;  // when to look at it
    bool has_come = false;                       // it is overdue, and tried again
  };
  std::map<std::string, Due> due_;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace virtuserns::compute
