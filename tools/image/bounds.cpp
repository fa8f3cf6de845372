#include "tools/image/bounds.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <string>

namespace virtuserns::image {
namespace {

constexpr std::uint64_t kLeastBytes = 64u << 20, kLeastInodes = 4096;

void bound(Bound& bound, std::uint64_t total, std::uint64_t free, unsigned percent, std::uint64_t least) {
  const auto reserve = std::max(total / 100 * percent, least);
  const auto room = free > reserve ? free - reserve : 0;
  if (room < bound.most) bound = {room, true};
}

}  // namespace

Error exceeds(const Bound& bound, std::string_view has, std::string_view unit) {
  auto error = fail(kTooLarge, std::string(has) + " more than the " + std::to_string(bound.most) + " " +
                                   std::string(unit) + " that ");
  error.text += bound.is_room ? "its file system can spare: make room there" : "it may have";
  if (bound.is_room) error.code = VIR_ERR_SYSTEM_ERROR, error.sys_errno = ENOSPC;
  return error;
}

Result<void> bound_by_room(Limits& limits, const DirFd& root, unsigned reserve_percent) {
  struct statvfs space {};
  if (::fstatvfs(root.get(), &space) != 0) return sys_fail("look at the file system");
  const auto block = std::uint64_t{space.f_frsize};
  bound(limits.bytes, space.f_blocks * block, space.f_bavail * block, reserve_percent, kLeastBytes);
  // Without a number of inodes it makes them as they are needed.
  if (space.f_files != 0) bound(limits.entries, space.f_files, space.f_favail, reserve_percent, kLeastInodes);
  return {};
}

}  // namespace virtuserns::image
