#include "tools/image/disk.h"

#include <algorithm>

#include "conf/base/text.h"
#include "tools/convert/guest_mount.h"
#include "tools/convert/machine.h"
#include "tools/convert/tree.h"
#include "tools/convert/volume.h"
#include "tools/convert/walk.h"
#include "tools/image/confined.h"

namespace virtuserns::image {

using convert::Access;
using convert::OpenDisk;
using convert::Placed;

namespace {

constexpr const char* kDisk = "vda";

Error refused(const std::string& text) { return fail(VIR_ERR_OPERATION_FAILED, text); }

// File systems that nobody writes, and so without a journal.
bool is_packed(const convert::Volume& volume) { return volume.type == "squashfs" || volume.type == "erofs"; }

// A disk with one file system is that, whatever is in it: not all that is run in a container has an init.
Result<convert::Layout> find_places(const convert::DisksByName& disks, const convert::Volumes& volumes,
                                    const std::string& wanted) {
  auto found = convert::find_layout(disks, volumes.all, wanted);
  if (found) return found;
  const convert::Volume* only = nullptr;
  for (const auto& volume : volumes.all) {
    if (!convert::is_mountable(volume) && !is_packed(volume)) continue;
    if (!wanted.empty() && volume.name != wanted) continue;
    if (only) return found;
    only = &volume;
  }
  if (!only) return found;
  convert::Layout layout;
  layout.places.push_back({*only, "/", ""});
  return layout;
}

struct Studied {
  convert::Layout layout;
  std::uint64_t size = 0;  // of the disk, as its machine would see it
};

Result<Studied> study(const convert::Image& image, const UnpackOptions& options, const std::string& workplace) {
  Studied studied;
  convert::DisksByName disks;
  disks.emplace(kDisk, TRY(OpenDisk::open({image}, Access::kRead, workplace)));
  auto& disk = disks.begin()->second;
  TRY(convert::check_image(image, workplace));
  studied.size = disk.size();
  const std::vector<convert::DiskView> views{{kDisk, &disk.file(), disk.reader()}};
  const auto volumes = TRY(convert::find_volumes(views));
  studied.layout = TRY(find_places(disks, volumes, options.root));
  TRY(disk.close());
  return studied;
}

// What can be known before anything is written.
Result<void> check_tree(const DirFd& root, const Limits& limits) {
  convert::WalkLimits bounds;
  bounds.max_entries = limits.entries + 1;
  const auto seen = TRY(convert::walk(root, kIdCount, bounds), "look at its files");
  if (seen.entries > limits.entries)
    return refused("it has more than the " + std::to_string(limits.entries) + " entries that it may have");
  if (!seen.is_complete)
    return refused("its file system cannot be looked at as a whole: a directory cannot be read, or is too deep");
  if (seen.bytes > limits.bytes)
    return refused("its files have " + std::to_string(seen.bytes) + " bytes, and may have " +
                   std::to_string(limits.bytes));
  if (seen.above_map.count > 0)
    return refused(quote(seen.above_map.examples.front()) + " and " + std::to_string(seen.above_map.count - 1) +
                   " others belong to ids that a container has not (it has 0 to " + std::to_string(kIdCount - 1) +
                   "): give them to other owners");
  return {};
}

// One overlay for each volume, as in a conversion: a volume that is mounted twice is one device.
Result<convert::DisksByName> open_overlays(const convert::Image& image, const Studied& studied,
                                           std::vector<Placed>& places, const std::string& work,
                                           const std::string& workplace) {
  convert::DisksByName opened;
  for (auto& place : places) {
    const bool is_read = is_packed(place.volume);
    place.volume.disk = place.volume.name;
    if (opened.contains(place.volume.name)) continue;
    std::vector<convert::Image> chain{image};
    if (!is_read)
      chain.insert(chain.begin(),
                   TRY(convert::make_overlay(work + "/" + convert::overlay_name(place), image, studied.size)));
    opened.emplace(place.volume.name,
                   TRY(OpenDisk::open(chain, is_read ? Access::kRead : Access::kWrite, workplace)));
  }
  return opened;
}

}  // namespace

Result<Report> copy_disk(const convert::Image& image, const UnpackOptions& options, const DirFd& to,
                         const std::string& work, const std::string& workplace) {
  options.say("looking at " + quote(image.path));
  const auto studied = TRY(study(image, options, workplace));
  auto places = studied.layout.places;
  Report report;
  report.root = places.front().volume.name;
  report.findings = studied.layout.findings;
  for (const auto& place : places) report.targets.push_back(place.target);
  auto disks = TRY(open_overlays(image, studied, places, work, workplace));
  TRY(convert::check_unchanged(image));
  const auto access = is_packed(places.front().volume) ? Access::kRead : Access::kWrite;
  {
    auto guest = TRY(convert::GuestMount::mount(disks, places, access, workplace + "/guest"));
    TRY(check_tree(guest.root(), options.limits));
    options.say("copying its files");
    const auto copied =
        TRY(convert::copy_tree(guest.root(), to, options.limits.bytes, [](const auto&) {}), "copy its files");
    report.entries = copied.entries;
    report.bytes = copied.bytes;
    report.findings.insert(report.findings.end(), copied.findings.begin(), copied.findings.end());
    TRY(guest.unmount());
  }
  for (auto& [name, disk] : disks) TRY(disk.close(), quote(name));
  return report;
}

}  // namespace virtuserns::image
