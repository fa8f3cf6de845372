#include "tools/image/layers.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/mount.h"

namespace virtuserns::image {
namespace {

constexpr std::uint64_t kAttributes =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME;

Result<MountFd> open_layer(const std::string& path, const NsFd* ids) {
  auto mount = TRY(kernel::clone_mount(TRY(open_directory(path)), "", kernel::Depth::kTopOnly));
  if (ids) TRY(kernel::set_mount_idmap(mount, *ids, kernel::Depth::kTopOnly));
  TRY(kernel::set_mount_attributes(mount, kAttributes, MOUNT_ATTR__ATIME, kernel::Depth::kTopOnly));
  return mount;
}

// Layers as mounts of ours for as long as the kernel is asked: detached ones Linux 6.1 does not take.
class Places {
 public:
  explicit Places(const std::string& workplace) : workplace_(workplace) {}
  ~Places() {
    for (const auto& path : paths_) {
      (void)::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
      (void)::rmdir(path.c_str());
    }
  }
  Places(const Places&) = delete;
  Places& operator=(const Places&) = delete;

  Result<void> add(const MountFd& mount) {
    const auto path = workplace_ + "/layer" + std::to_string(paths_.size());
    if (::mkdir(path.c_str(), 0700) != 0) return sys_fail("create a place for a layer");
    paths_.push_back(path);
    return kernel::attach_mount(mount, TRY(open_directory(path)));
  }
  [[nodiscard]] std::string joined() const { return join(paths_, ":"); }

 private:
  const std::string& workplace_;
  std::vector<std::string> paths_;
};

}  // namespace

Result<MountFd> mount_layers(const std::vector<std::string>& layers, const NsFd* ids, const std::string& workplace) {
  std::vector<MountFd> mounts;
  for (const auto& layer : layers) mounts.push_back(TRY(open_layer(layer, ids), "layer " + quote(layer)));
  if (mounts.size() == 1) return std::move(mounts.front());
  Places places(workplace);
  for (const auto& mount : mounts) TRY(places.add(mount));
  return kernel::make_filesystem("overlay",
                                 {{"source", "overlay"},
                                  {"lowerdir", places.joined()},
                                  {"redirect_dir", "nofollow"},
                                  {"metacopy", "off"},
                                  {"index", "off"},
                                  {"nfs_export", "off"},
                                  {"ro", ""}},
                                 kAttributes);
}

}  // namespace virtuserns::image
