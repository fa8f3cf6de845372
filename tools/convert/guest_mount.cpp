#include "tools/convert/guest_mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/image/superblock.h"
#include "driver/kernel/mount.h"
#include "tools/convert/fstab.h"
#include "tools/convert/guest_files.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kMaxPlaces = 64;
// Where distributions put the root of a btrfs when it is not the default subvolume.
constexpr const char* kRootSubvolumes[] = {"", "@", "@rootfs", "root", "@/.snapshots/1/snapshot"};

// What the superblock asks for when it is damaged ("errors=panic") is not for a guest to say.
kernel::MountOptions options_of(const Placed& place, const std::string& device, Access access) {
  kernel::MountOptions options{{"source", device}};
  const auto& type = place.volume.type;
  if (access == Access::kRead) options.emplace_back("ro", "");
  if (type.starts_with("ext")) {
    options.emplace_back("errors", "remount-ro");
    if (access == Access::kRead) options.emplace_back("noload", "");
  } else if (type == "xfs") {
    options.emplace_back("nouuid", "");
    if (access == Access::kRead) options.emplace_back("norecovery", "");
  } else if (type == "btrfs") {
    if (access == Access::kRead) options.emplace_back("rescue", "nologreplay");
    if (!place.subvolume.empty()) options.emplace_back("subvol", place.subvolume);
  }
  return options;
}

// One device for each volume, however many subvolumes of it are mounted: a btrfs that is seen on two devices at once is
// two devices of one file system for the kernel.
class Devices {
 public:
  Devices(const DisksByName& disks, Access access) : disks_(disks), access_(access) {}

  Result<MountFd> mount(const Placed& place) {
    const auto& volume = place.volume;
    auto& device = devices_[{volume.disk, volume.offset}];
    if (!device.device) {
      const auto disk = disks_.find(volume.disk);
      if (disk == disks_.end()) return fail(VIR_ERR_INTERNAL_ERROR, "no disk '" + volume.disk + "'");
      TRY(image::check_superblock(disk->second.file(), volume.type, volume.offset));
      device = TRY(attach_part(disk->second.file(), volume.offset, volume.size, access_));
    }
    return kernel::make_filesystem(volume.type.starts_with("ext") ? "ext4" : volume.type,
                                   options_of(place, device.path, access_),
                                   MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC |
                                       (access_ == Access::kRead ? MOUNT_ATTR_RDONLY : 0));
  }

 private:
  const DisksByName& disks_;
  Access access_;
  std::map<std::pair<std::string, std::uint64_t>, kernel::LoopDevice> devices_;
};

Result<DirFd> root_of(const MountFd& mount) {
  DirFd root(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return sys_fail("open the root");
  return root;
}

bool looks_like_root(const GuestFiles& files) {
  return files.type("/etc") == GuestType::kDirectory &&
         (files.exists("/etc/fstab") || files.exists("/etc/os-release")) &&
         (files.exists("/sbin/init") || files.exists("/usr/lib/systemd/systemd") ||
          files.exists("/lib/systemd/systemd"));
}

// What --root says.
Result<void> check_wanted(std::span<const Volume> volumes, const std::string& wanted) {
  std::string names;
  for (const auto& volume : volumes) {
    if (wanted.empty() || volume.name == wanted) return {};
    names += (names.empty() ? "" : ", ") + quote(volume.name);
  }
  if (wanted.empty()) return {};
  return fail(VIR_ERR_INVALID_ARG,
              "there is no volume " + quote(wanted) + (names.empty() ? ", nor another" : "; there are " + names));
}

struct Candidate {
  Placed place;
  std::string fstab;
};

Result<std::vector<Candidate>> find_candidates(const DisksByName& disks, std::span<const Volume> volumes,
                                               const std::string& wanted, std::vector<Finding>& findings) {
  std::vector<Candidate> candidates;
  Devices devices(disks, Access::kRead);
  for (const auto& volume : volumes) {
    if (!is_mountable(volume) || (!wanted.empty() && volume.name != wanted)) continue;
    for (const auto* subvolume : kRootSubvolumes) {
      if (*subvolume && volume.type != "btrfs") break;
      Placed place{volume, "/", subvolume};
      const auto mount = devices.mount(place);
      if (!mount) {
        if (*subvolume == '\0')
          findings.push_back({Severity::kLoss, "volume '" + volume.name + "'",
                              "cannot be mounted: " + mount.error().text, "repair it in the VM, by fsck"});
        continue;
      }
      const GuestFiles files(TRY(root_of(*mount)));
      if (!looks_like_root(files)) continue;
      candidates.push_back({std::move(place), files.read_or_empty("/etc/fstab")});
      break;
    }
  }
  return candidates;
}

// Of several that could be it: the one whose own fstab says that it is.
Result<Candidate> choose(std::vector<Candidate> candidates, std::span<const Volume> volumes,
                         const std::vector<Finding>& findings) {
  const auto says_so = [&](const Candidate& candidate) {
    for (const auto& line : parse_fstab(candidate.fstab))
      if (line.is_entry && line.target == "/") {
        const auto* volume = resolve_spec(volumes, line.spec);
        return volume && *volume == candidate.place.volume;
      }
    return false;
  };
  if (candidates.empty()) {
    std::string why = "no volume has the root of a Linux system (an /etc and an init)";
    for (const auto& finding : findings) why += "; " + finding.object + " " + finding.text;
    return fail(VIR_ERR_OPERATION_FAILED, why);
  }
  if (candidates.size() == 1) return std::move(candidates.front());
  std::string names;
  for (const auto& candidate : candidates) names += " '" + candidate.place.volume.name + "'";
  std::erase_if(candidates, [&](const auto& candidate) { return !says_so(candidate); });
  if (candidates.size() == 1) return std::move(candidates.front());
  return fail(VIR_ERR_OPERATION_FAILED, "several volumes could be the root:" + names + "; choose with --root");
}

std::size_t depth_of(const std::string& target) {
  return target == "/" ? 0 : static_cast<std::size_t>(std::count(target.begin(), target.end(), '/'));
}

bool is_plain_target(const std::string& target) {
  const auto parts = split(target, '/');
  return target.size() > 1 && target.front() == '/' && target.back() != '/' &&
         std::none_of(parts.begin() + 1, parts.end(),
                      [](auto part) { return part.empty() || part == "." || part == ".."; });
}

void place_line(const FstabLine& line, std::span<const Volume> volumes, Layout& layout) {
  const auto* volume = resolve_spec(volumes, line.spec);
  if (!volume || !is_mountable(*volume) || !is_plain_target(line.target) || option_of(line, "noauto")) return;
  const std::string object = "fstab '" + line.target + "'";
  if (layout.places.size() == kMaxPlaces) {
    layout.findings.push_back({Severity::kLoss, object, "is one mount too many", ""});
    return;
  }
  Placed place{*volume, line.target, ""};
  if (const auto subvolume = option_of(line, "subvol"); subvolume && volume->type == "btrfs")
    place.subvolume = subvolume->starts_with('/') ? subvolume->substr(1) : *subvolume;
  if (place.subvolume.size() > 1024 || place.subvolume.find(',') != std::string::npos) return;
  layout.places.push_back(std::move(place));
}

}  // namespace

Result<Layout> find_layout(const DisksByName& disks, std::span<const Volume> volumes, const std::string& wanted) {
  TRY(check_wanted(volumes, wanted));
  Layout layout;
  auto candidates = TRY(find_candidates(disks, volumes, wanted, layout.findings));
  auto root = TRY(choose(std::move(candidates), volumes, layout.findings));
  for (const auto& line : parse_fstab(root.fstab)) {
    if (!line.is_entry || line.target == "/") continue;
    place_line(line, volumes, layout);
  }
  std::stable_sort(layout.places.begin(), layout.places.end(),
                   [](const auto& a, const auto& b) { return depth_of(a.target) < depth_of(b.target); });
  layout.places.insert(layout.places.begin(), std::move(root.place));
  return layout;
}

Result<GuestMount> GuestMount::mount(const DisksByName& disks, std::span<const Placed> places, Access access,
                                     const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return sys_fail("make " + quote(path));
  const auto target = TRY(open_directory(path));
  Devices devices(disks, access);
  const auto top = TRY(devices.mount(places.front()), "mount the root of the guest");
  TRY(kernel::attach_mount(top, target));
  GuestMount guest(path);
  for (const auto& place : places.subspan(1)) {
    const std::string what = "mount " + quote(place.target) + " of the guest";
    auto on = kernel::resolve_in_root(guest.root(), place.target, kernel::Symlinks::kFollowInRoot, O_DIRECTORY);
    if (!on && on.error().sys_errno == ENOENT) {
      if (access == Access::kRead) {
        guest.left_out_.push_back(place.target);
        continue;
      }
      on = kernel::make_target(guest.root(), place.target, kernel::TargetKind::kDirectory,
                               kernel::Symlinks::kFollowInRoot);
    }
    if (!on) return fail(on.error().code, what + ": " + on.error().text);
    TRY(kernel::attach_mount(TRY(devices.mount(place), what), *on), what);
  }
  return guest;
}

DirFd GuestMount::root() const { return DirFd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

GuestMount::~GuestMount() {
  if (!path_.empty()) (void)::umount2(path_.c_str(), MNT_DETACH);
}

Result<void> GuestMount::unmount() {
  // What is mounted below goes first; each says whether its data could be written.
  const auto mounts = TRY(read_kernel_file("/proc/self/mountinfo"));
  std::vector<std::string> below;
  for (const auto line : split(mounts, '\n')) {
    const auto fields = split_blanks(line);
    const auto place = fields.size() > 4 ? unescape_octal(fields[4]) : "";
    if (place == path_ || place.starts_with(path_ + "/")) below.push_back(place);
  }
  for (; !below.empty(); below.pop_back())
    if (::umount2(below.back().c_str(), UMOUNT_NOFOLLOW) != 0) return sys_fail("unmount the guest");
  path_.clear();
  return {};
}

}  // namespace virtuserns::convert
