#include "tools/convert/image_mount.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/mount.h"

namespace virtuserns::convert {

Result<ImageMount> ImageMount::mount(const kernel::LoopDevice& device, Access access, const std::string& place) {
  kernel::MountOptions options{{"source", device.path}, {"errors", "remount-ro"}};
  if (access == Access::kRead) options.emplace_back("ro", "");
  const auto made =
      TRY(kernel::make_filesystem("ext4", options, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  if (::mkdir(place.c_str(), 0700) != 0 && errno != EEXIST) return sys_fail("make " + quote(place));
  TRY(kernel::attach_mount(made, TRY(open_directory(place))));
  return ImageMount(place);
}

ImageMount::~ImageMount() {
  if (!place_.empty()) (void)::umount2(place_.c_str(), MNT_DETACH);
}

Result<void> ImageMount::unmount() {
  if (::umount2(std::exchange(place_, "").c_str(), 0) != 0) return sys_fail("unmount the image");
  return {};
}

}  // namespace virtuserns::convert
