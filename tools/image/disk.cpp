#include "tools/image/disk.h"

#include <fcntl.h>
#include <unistd.h>

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
constexpr std::size_t kChunk = 1024 * 1024, kBlock = 64 * 1024;
constexpr std::uint64_t kMostOfADisk = std::uint64_t{1} << 40;

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
  bounds.max_entries = limits.entries.most + 1;
  const auto seen = TRY(convert::walk(root, kIdCount, bounds), "look at its files");
  if (seen.entries > limits.entries.most) return exceeds(limits.entries, "it has", "entries");
  if (!seen.is_complete)
    return refused("its file system cannot be looked at as a whole: a directory cannot be read, or is too deep");
  if (seen.bytes > limits.bytes.most)
    return exceeds(limits.bytes, "its files have " + std::to_string(seen.bytes) + " bytes,", "bytes");
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

// How many bytes were written, in blocks that are not all zero.
Result<std::uint64_t> write_unless_zero(const Fd& file, std::string_view bytes, std::uint64_t at) {
  std::uint64_t written = 0;
  for (std::size_t done = 0; done < bytes.size(); done += kBlock) {
    const auto block = bytes.substr(done, kBlock);
    if (block.find_first_not_of('\0') == std::string_view::npos) continue;
    if (::pwrite(file.get(), block.data(), block.size(), static_cast<off_t>(at + done)) !=
        static_cast<ssize_t>(block.size()))
      return sys_fail("write the disk", errno == 0 ? ENOSPC : errno);
    written += block.size();
  }
  return written;
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
        TRY(convert::copy_tree(guest.root(), to, options.limits.bytes.most, [](const auto&) {}), "copy its files");
    report.entries = copied.entries;
    report.bytes = copied.bytes;
    report.findings.insert(report.findings.end(), copied.findings.begin(), copied.findings.end());
    TRY(guest.unmount());
  }
  for (auto& [name, disk] : disks) TRY(disk.close(), quote(name));
  return report;
}

Result<Report> copy_whole(const convert::Image& image, const UnpackOptions& options, const DirFd& to,
                          const std::string& workplace) {
  auto disk = TRY(OpenDisk::open({image}, Access::kRead, workplace));
  TRY(convert::check_image(image, workplace));
  // Holes of one cost nothing but the time to read them.
  if (disk.size() > kMostOfADisk)
    return refused("a disk of more than " + std::to_string(kMostOfADisk >> 40) + " TiB is no image to start from");
  options.say("copying the disk");
  const Fd copy(::openat(to.get(), kWholeDisk, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!copy) return sys_fail("make the file of the disk");
  if (::ftruncate(copy.get(), static_cast<off_t>(disk.size())) != 0) return sys_fail("give the disk its size");
  Report report;
  report.entries = 1;
  std::string bytes(kChunk, '\0');
  for (std::uint64_t at = 0; at < disk.size(); at += kChunk) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, disk.size() - at));
    if (::pread(disk.file().get(), bytes.data(), size, static_cast<off_t>(at)) != static_cast<ssize_t>(size))
      return sys_fail("read the disk", errno == 0 ? EIO : errno);
    report.bytes += TRY(write_unless_zero(copy, {bytes.data(), size}, at));
    if (report.bytes > options.limits.bytes.most) return exceeds(options.limits.bytes, "it has", "bytes");
  }
  if (::fdatasync(copy.get()) != 0) return sys_fail("write the disk");
  TRY(disk.close());
  TRY(convert::check_unchanged(image));
  return report;
}

}  // namespace virtuserns::image
