#include "driver/compute/room.h"

#include <sys/statvfs.h>

#include <algorithm>

namespace virtuserns::compute {
namespace {

// More than any file system has; and of many of them there is a sum.
constexpr std::uint64_t kUnbounded = std::uint64_t{1} << 50;
constexpr std::uint64_t kLeastReserve = 64u << 20;  // as virt-userns-image(1) has it

}  // namespace

std::uint64_t Room::spare_bytes() const {
  struct statvfs space {};
  if (::statvfs(folder_.c_str(), &space) != 0) return 0;
  const auto total = std::uint64_t{space.f_blocks} * space.f_frsize,
             free = std::uint64_t{space.f_bavail} * space.f_frsize;
  const auto reserve = std::max(total / 100 * reserve_percent_, kLeastReserve);
  return free > reserve ? free - reserve : 0;
}

std::uint64_t Room::enter(std::uint64_t limit_bytes) {
  const auto bytes = limit_bytes == 0 ? kUnbounded : std::min(limit_bytes, kUnbounded);
  std::unique_lock lock(mutex_);
  const auto mine = waiting_.emplace(waiting_.end());
  (void)changed_.wait_for(lock, patience_, [&] {
    return mine == waiting_.begin() && (running_ == 0 || promised_ + bytes <= spare_bytes());
  });
  waiting_.erase(mine);
  ++running_;
  promised_ += bytes;
  changed_.notify_all();
  return bytes;
}

void Room::leave(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  --running_;
  promised_ -= bytes;
  changed_.notify_all();
}

}  // namespace virtuserns::compute
