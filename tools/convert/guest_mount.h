// The file systems of a guest, mounted as its fstab says, below one root that only this process sees.
#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/storage.h"
#include "tools/convert/volume.h"

namespace virtuserns::convert {

// Where a volume belongs in the guest.
struct Placed {
  Volume volume;
  std::string target;     // "/", "/home"
  std::string subvolume;  // btrfs: "" is its default
  bool operator==(const Placed&) const = default;
};

struct Layout {
  std::vector<Placed> places;  // "/" first, then by depth
  std::vector<Finding> findings;
};

using DisksByName = std::map<std::string, OpenDisk>;

// Looks for the root (the only volume that has an /etc/fstab or an init, or the one that `wanted` names) and reads its
// fstab. Volumes are mounted read-only and without replaying a journal; nothing stays mounted.
[[nodiscard]] Result<Layout> find_layout(const DisksByName& disks, std::span<const Volume> volumes,
                                         const std::string& wanted);

class GuestMount {
 public:
  // kRead: as in find_layout; a place whose mount point is missing is left out. kWrite: journals are replayed first, by the
  // kernel, and such a mount point is made, as systemd does it. `path` is made, in the workplace.
  [[nodiscard]] static Result<GuestMount> mount(const DisksByName& disks, std::span<const Placed> places,
                                                Access access, const std::string& path);
  GuestMount(GuestMount&& other) noexcept
      : path_(std::exchange(other.path_, "")), left_out_(std::move(other.left_out_)) {}
  GuestMount& operator=(GuestMount&&) = delete;
  ~GuestMount();

  [[nodiscard]] DirFd root() const;  // a new descriptor of it
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::vector<std::string>& left_out() const { return left_out_; }
  // An error: something still uses it, or what was written could not be.
  [[nodiscard]] Result<void> unmount();

 private:
  explicit GuestMount(std::string path) : path_(std::move(path)) {}
  std::string path_;                   // empty: not mounted
  std::vector<std::string> left_out_;  // targets
};

}  // namespace virtuserns::convert
