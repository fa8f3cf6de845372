#include "driver/compute/room.h"

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/spare.h"

namespace virtuserns::compute {
namespace {

// More than any file system has; and of many of them there is a sum.
constexpr std::uint64_t kUnbounded = std::uint64_t{1} << 50;

}  // namespace

Room::Amount Room::enter(Amount limit) {
  const auto bounded = [](std::uint64_t value) { return value == 0 ? kUnbounded : std::min(value, kUnbounded); };
  const Amount wanted{bounded(limit.bytes), bounded(limit.entries)};
  const auto fits = [&] {
    const auto folder = open_directory(folder_);
    const auto spare = folder ? spare_of(*folder, reserve_percent_) : Result<Spare>(folder.error());
    return spare && promised_.bytes + wanted.bytes <= spare->bytes &&
           promised_.entries + wanted.entries <= spare->inodes;
  };
  std::unique_lock lock(mutex_);
  const auto mine = waiting_.emplace(waiting_.end());
  (void)changed_.wait_for(lock, patience_,
                          [&] { return is_ending_ || (mine == waiting_.begin() && (running_ == 0 || fits())); });
  waiting_.erase(mine);
  ++running_;
  promised_.bytes += wanted.bytes;
  promised_.entries += wanted.entries;
  changed_.notify_all();
  return wanted;
}

void Room::leave(Amount promised) {
  const std::lock_guard lock(mutex_);
  --running_;
  promised_.bytes -= promised.bytes;
  promised_.entries -= promised.entries;
  changed_.notify_all();
}

bool Room::is_ending() {
  const std::lock_guard lock(mutex_);
  return is_ending_;
}

void Room::stop() {
  const std::lock_guard lock(mutex_);
  is_ending_ = true;
  changed_.notify_all();
}

}  // namespace virtuserns::compute
