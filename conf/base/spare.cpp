#include "conf/base/spare.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <limits>

namespace virtuserns {
namespace {

constexpr std::uint64_t kLeastBytes = 64u << 20, kLeastInodes = 4096;

std::uint64_t besides_reserve(std::uint64_t total, std::uint64_t free, unsigned percent, std::uint64_t least) {
  const auto reserve = std::max(total / 100 * percent, least);
  return free > reserve ? free - reserve : 0;
}

}  // namespace

Result<Spare> spare_of(const DirFd& place, unsigned reserve_percent) {
  struct statvfs space {};
  if (::fstatvfs(place.get(), &space) != 0) return sys_fail("look at the file system");
  const auto block = std::uint64_t{space.f_frsize};
  Spare spare;
  spare.bytes = besides_reserve(space.f_blocks * block, space.f_bavail * block, reserve_percent, kLeastBytes);
  // One without a number of inodes makes them as they are needed.
  spare.inodes = space.f_files == 0 ? std::numeric_limits<std::uint64_t>::max()
                                    : besides_reserve(space.f_files, space.f_favail, reserve_percent, kLeastInodes);
  return spare;
}

}  // namespace virtuserns
