#include "tools/convert/target.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/convert/image_mount.h"
#include "tools/convert/tree.h"

namespace virtuserns::convert {
namespace {

constexpr const char *kWorkFolder = "work", *kRoot = "root";
constexpr std::uint64_t kReserve = 64u << 20;  // of the file system of the folder, for everybody else

Result<std::vector<Finding>> edit(const DirFd& root, const Machine& machine, const Settings& settings,
                                  const Job& job) {
  settings.say("editing the guest's files");
  auto findings = TRY(edit_guest(root, guest_options(machine, settings), job.path("originals"),
                                 settings.is_forced ? OnBlock::kEdit : OnBlock::kRefuse));
  if (worst(findings) == Severity::kBlock && !settings.is_forced)
    return fail(VIR_ERR_OPERATION_FAILED, "the guest cannot be a container; see 'virt-userns-convert plan'");
  return findings;
}

Result<void> close_all(DisksByName& disks) {
  for (auto& [name, disk] : disks) TRY(disk.close(), quote(name));
  return {};
}

Result<void> sync_filesystem(const DirFd& dir) {
  if (::syncfs(dir.get()) != 0) return sys_fail("write everything to disk");
  return {};
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes / 1024 / 1024) + " MiB"; }

Result<std::uint64_t> room_in(const std::string& path) {
  struct statvfs space {};
  if (::statvfs(path.c_str(), &space) != 0) return sys_fail("look at " + quote(path));
  const auto free = std::uint64_t{space.f_bavail} * space.f_frsize;
  return free > kReserve ? free - kReserve : 0;
}

Result<void> check_space(const std::string& path, std::uint64_t needed) {
  const auto free = TRY(room_in(path));
  if (free >= needed) return {};
  return fail(VIR_ERR_OPERATION_FAILED, quote(path) + " has " + mebibytes(free) + " to spare, and " +
                                            mebibytes(needed) + " are needed; choose another --folder");
}

// The guest's files, into what is empty, or onto what is older.
Result<Copied> copy_files(const DirFd& to, const Machine& machine, const Settings& settings,
                          const std::string& workplace, const Job& job,
                          const std::optional<timespec>& doubtful_since = std::nullopt,
                          time_t own_since = std::numeric_limits<time_t>::max()) {
  // Journals are replayed on overlays that are thrown away.
  if (::mkdir(job.path(kWorkFolder).c_str(), 0700) != 0) return sys_fail("make " + quote(job.path(kWorkFolder)));
  auto places = job.state().places;
  auto disks = TRY(open_overlays(job.state().disks, places, job.path(kWorkFolder), workplace));
  Copied copied;
  {
    auto guest = TRY(GuestMount::mount(disks, places, Access::kWrite, workplace + "/guest"));
    std::uint64_t said = 0;
    const std::uint64_t step = std::max<std::uint64_t>(machine.file_bytes / 10, 1);
    const auto progress = [&](const CopyCount& count) {
      if (count.bytes / step <= said) return;
      said = count.bytes / step;
      settings.say("copied " + std::to_string(count.entries) + " files, " + mebibytes(count.bytes) + " of about " +
                   mebibytes(machine.file_bytes));
    };
    // What the files seem to need is what they say themselves; a block that is in many of them is copied as often.
    const auto most = std::min(16 * machine.volume_bytes, TRY(room_in(job.path("."))));
    copied = TRY(doubtful_since ? update_tree(guest.root(), to, most, progress, doubtful_since)
                                : copy_tree(guest.root(), to, most, progress, own_since),
                 "copy the guest's files");
    TRY(guest.unmount());
  }
  TRY(close_all(disks));
  TRY(remove_tree(TRY(open_directory(job.path("."))), kWorkFolder));
  settings.say((doubtful_since ? "looked at " : "copied ") + std::to_string(copied.entries) + " files, " +
               mebibytes(copied.bytes) + (doubtful_since ? " were copied" : ""));
  return copied;
}

Result<std::vector<Finding>> copy_into(const DirFd& to, const Machine& machine, const Settings& settings,
                                       const std::string& workplace, const Job& job) {
  const auto copied = TRY(copy_files(to, machine, settings, workplace, job));
  auto findings = TRY(edit(to, machine, settings, job));
  findings.insert(findings.end(), copied.findings.begin(), copied.findings.end());
  return findings;
}

Result<DirFd> make_root(const Machine& machine, const Job& job) {
  TRY(check_space(job.path("."), machine.file_bytes));
  const auto path = job.path(kRoot);
  if (::mkdir(path.c_str(), 0755) != 0) return sys_fail("make " + quote(path));
  return open_directory(path);
}

Result<std::vector<Finding>> make_tree(const Machine& machine, const Settings& settings, const std::string& workplace,
                                       const Job& job) {
  const auto root = TRY(make_root(machine, job));
  auto findings = TRY(copy_into(root, machine, settings, workplace, job));
  TRY(sync_filesystem(root));
  return findings;
}

Result<std::vector<Finding>> make_image(const Machine& machine, const Settings& settings,
                                        const std::string& workplace, const Job& job) {
  const auto path = job.path("root.img");
  TRY(check_space(job.path("."), machine.file_bytes));
  if (settings.image_bytes <= machine.file_bytes)
    return fail(VIR_ERR_INVALID_ARG,
                "the guest's files are " + mebibytes(machine.file_bytes) + "; choose a larger --size");
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file || ::ftruncate(file.get(), static_cast<off_t>(settings.image_bytes)) != 0)
    return sys_fail("make " + quote(path));
  (void)TRY(kernel::need_program({"mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "--", path}, 600'000));
  std::vector<Finding> findings;
  {
    const auto device = TRY(attach_part(file, 0, settings.image_bytes, Access::kWrite));
    const auto place = workplace + "/image";
    auto mounted = TRY(ImageMount::mount(device, Access::kWrite, place), "mount the new image");
    {
      const auto root = TRY(open_directory(place));
      // Of mkfs; a guest has its own, or none.
      TRY(remove_tree(root, "lost+found"));
      findings = TRY(copy_into(root, machine, settings, workplace, job));
      TRY(sync_filesystem(root));
    }
    TRY(mounted.unmount());
  }
  if (::fsync(file.get()) != 0) return sys_fail("write " + quote(path));
  return findings;
}

Result<std::vector<Finding>> make_in_place(const Machine& machine, const Settings& settings,
                                           const std::string& workplace, const Job& job) {
  auto places = job.state().places;
  auto disks = TRY(open_overlays(job.state().disks, places, job.path("."), workplace));
  std::vector<Finding> findings;
  {
    auto guest = TRY(GuestMount::mount(disks, places, Access::kWrite, workplace + "/guest"));
    findings = TRY(edit(guest.root(), machine, settings, job));
    TRY(guest.unmount());
  }
  TRY(close_all(disks));
  return findings;
}

}  // namespace

Result<Copied> copy_bulk(const Machine& machine, const Settings& settings, const std::string& workplace,
                         const Job& job, time_t own_since) {
  const auto root = TRY(make_root(machine, job));
  auto copied = TRY(copy_files(root, machine, settings, workplace, job, std::nullopt, own_since));
  // Not when nobody answers.
  TRY(sync_filesystem(root));
  return copied;
}

Result<Copied> copy_delta(const Machine& machine, const Settings& settings, const std::string& workplace,
                          const Job& job, const timespec& doubtful_since) {
  return copy_files(TRY(open_directory(job.path(kRoot))), machine, settings, workplace, job, doubtful_since);
}

Result<std::vector<Finding>> finish_tree(const Machine& machine, const Settings& settings, const Job& job) {
  const auto root = TRY(open_directory(job.path(kRoot)));
  auto findings = TRY(edit(root, machine, settings, job));
  TRY(sync_filesystem(root));
  return findings;
}

Result<DisksByName> open_overlays(const std::vector<JobDisk>& disks, std::vector<Placed>& places,
                                  const std::string& folder, const std::string& workplace) {
  DisksByName opened;
  for (auto& place : places) {
    const auto disk = std::find_if(disks.begin(), disks.end(),
                                   [&](const auto& candidate) { return candidate.target == place.volume.disk; });
    if (disk == disks.end()) return fail(VIR_ERR_INTERNAL_ERROR, "no disk '" + place.volume.disk + "'");
    place.volume.disk = place.volume.name;
    if (opened.contains(place.volume.name)) continue;
    std::vector<Image> chain{TRY(make_overlay(folder + "/" + overlay_name(place), disk->chain.front()))};
    chain.insert(chain.end(), disk->chain.begin(), disk->chain.end());
    opened.emplace(place.volume.name, TRY(OpenDisk::open(chain, Access::kWrite, workplace)));
    // From here on nobody else writes to it; until now a VM could have.
    for (const auto& image : disk->chain) TRY(check_unchanged(image));
  }
  TRY(sync_directory(folder));
  return opened;
}

Result<std::vector<Finding>> make_target(const Machine& machine, const Settings& settings,
                                         const std::string& workplace, const Job& job) {
  switch (settings.mode) {
    case Mode::kTree:
      return make_tree(machine, settings, workplace, job);
    case Mode::kImage:
      return make_image(machine, settings, workplace, job);
    case Mode::kInPlace:
      break;
  }
  return make_in_place(machine, settings, workplace, job);
}

}  // namespace virtuserns::convert
