#include "driver/compute/room.h"

#include <sys/statvfs.h>

#include <algorithm>

namespace virtuserns::compute {
namespace {

// More than any file system has; and of many of them there is a sum.
constexpr std::uint64_t kUnbounded = std::uint64_t{1} << 50;
constexpr std::uint64_t kLeastReserve = 64u << 20, kLeastEntries = 4096;  // as virt-userns-image(1) has them

}  // namespace

Room::Amount Room::spare() const {
  struct statvfs space {};
  if (::statvfs(folder_.c_str(), &space) != 0) return {};
  const auto besides = [&](std::uint64_t total, std::uint64_t free, std::uint64_t least) {
    const auto reserve = std::max(total / 100 * reserve_percent_, least);
    return free > reserve ? free - reserve : 0;
  };
  return {besides(std::uint64_t{space.f_blocks} * space.f_frsize, std::uint64_t{space.f_bavail} * space.f_frsize,
                  kLeastReserve),
          // Some file systems make them as they are needed, and say 0.
          space.f_files == 0 ? kUnbounded : besides(space.f_files, space.f_favail, kLeastEntries)};
}

Room::Amount Room::enter(Amount limit) {
  const auto bounded = [](std::uint64_t value) { return value == 0 ? kUnbounded : std::min(value, kUnbounded); };
  const Amount wanted{bounded(limit.bytes), bounded(limit.entries)};
  const auto fits = [&] {
    const auto free = spare();
    return promised_.bytes + wanted.bytes <= free.bytes && promised_.entries + wanted.entries <= free.entries;
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
