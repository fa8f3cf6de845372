#include "tools/image/bounds.h"

#include <string>

#include "conf/base/spare.h"

namespace virtuserns::image {
namespace {

void bound(Bound& bound, std::uint64_t room) {
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
  const auto spare = TRY(spare_of(root, reserve_percent));
  bound(limits.bytes, spare.bytes);
  bound(limits.entries, spare.inodes);
  return {};
}

}  // namespace virtuserns::image
