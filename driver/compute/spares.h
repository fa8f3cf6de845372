// Empty disks that wait for their instances: making a file system is a fifth of what an instance waits for here (tests/bench/nova_boot).
//
//   <folder>/PID-NUMBER   a disk as format_disk() makes it. What is there when an adapter begins is removed: it may be half a one
//
// One of each of the sizes that were asked for last. Whoever finds none makes a disk himself, and nothing is different but the time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "conf/base/result.h"

namespace virtuserns::compute {

// Thread-safe.
class Spares {
 public:
  static constexpr std::size_t kMostSizes = 4;

  // `folder` is made if need be, and the adapter's alone.
  [[nodiscard]] static Result<std::unique_ptr<Spares>> open(std::string folder);
  ~Spares();  // without leaving any
  Spares(const Spares&) = delete;
  Spares& operator=(const Spares&) = delete;

  // A disk of this size gets the name `path`, on the same file system; durable, but for that name: the journal is written beside it before
  // anybody hears of the instance. False: there was none, or it could not be moved. A thread of this class makes the next one soon after.
  [[nodiscard]] bool take(std::uint64_t bytes, const std::string& path);

 private:
  struct Spare {
    std::uint64_t bytes = 0;
    std::string path;  // empty: to be made
  };

  explicit Spares(std::string folder) : folder_(std::move(folder)) {}
  void run();

  const std::string folder_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Spare> spares_;  // of the size that was asked for last first
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace virtuserns::compute
