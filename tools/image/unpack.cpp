#include "tools/image/unpack.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/controller/storage.h"
#include "driver/kernel/mount.h"
#include "tools/convert/rules.h"
#include "tools/convert/storage.h"
#include "tools/image/root_tar.h"
#include "tools/image/confined.h"
#include "tools/image/detect.h"
#include "tools/image/disk.h"
#include "tools/image/place.h"
#include "tools/image/tally.h"

namespace virtuserns::image {
namespace {

constexpr std::uint64_t kOfExtractor = capability_bit(CAP_CHOWN) | capability_bit(CAP_DAC_OVERRIDE) |
                                       capability_bit(CAP_FOWNER) | capability_bit(CAP_FSETID) |
                                       capability_bit(CAP_SETFCAP);

Result<Fd> open_source(const std::string& path) {
  const auto found = TRY(controller::find_image(path));
  return controller::reopen(TRY(open_directory("/proc")), found.file, O_RDONLY);
}

Result<std::string> read_start(const Fd& file) {
  std::string start(kStartBytes, '\0');
  const auto got = ::pread(file.get(), start.data(), start.size(), 0);
  if (got < 0) return sys_fail("read");
  start.resize(static_cast<std::size_t>(got));
  return start;
}

Result<Report> extract(const Fd& archive, Compression compression, const UnpackOptions& options, const Place& place,
                       const std::string& workplace) {
  const auto ids = TRY(make_child_ids());
  auto tree = TRY(kernel::clone_mount(place.root(), "", kernel::Depth::kTopOnly));
  auto mapped = kernel::set_mount_idmap(tree, ids, kernel::Depth::kTopOnly);
  if (!mapped && mapped.error().sys_errno == EINVAL)
    return std::move(mapped).error().with_context(
        "the file system has no idmapped mounts, which containers need of it too: name a directory on ext4, xfs, btrfs "
        "or tmpfs");
  TRY(std::move(mapped));
  TRY(kernel::set_mount_attributes(tree, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0,
                                   kernel::Depth::kTopOnly));
  options.say("unpacking the archive");
  const auto answer =
      TRY(run_confined({ids, std::move(tree), workplace, kOfExtractor, {archive.get(), place.lock().get()}},
                       [&] { return extract_archive(archive, compression, options.limits); }));
  return Tally::decode(answer);
}

// The rules of a conversion: a machine's services, mounts and devices are not a container's.
Result<void> fit(const Place& place, const UnpackOptions& options, Report& report) {
  options.say("fitting it for a container");
  utsname host{};
  convert::GuestOptions guest;
  guest.machine_id = convert::MachineId::kReset;
  guest.mounted_targets = report.targets;
  if (::uname(&host) == 0) guest.host_arch = host.machine;
  const auto found = TRY(convert::edit_guest(place.root(), guest, place.work() + "/originals"), "fit");
  report.findings.insert(report.findings.end(), found.begin(), found.end());
  for (const auto& finding : found)
    if (finding.severity == convert::Severity::kBlock)
      return fail(VIR_ERR_OPERATION_FAILED, "it cannot be a container: " + finding.object + " " + finding.text);
  return {};
}

}  // namespace

Result<Report> unpack(const std::string& source, const std::string& directory, UnpackOptions options) {
  const std::string what = "image " + quote(source);
  const auto file = TRY(open_source(source));
  const auto detected = TRY(detect(TRY(read_start(file), what), options.format), what);
  const auto workplace = TRY(convert::make_workplace());
  auto place = TRY(Place::make(directory));
  TRY(bound_by_room(options.limits, place.root(), options.reserve_percent));
  const auto fill = [&]() -> Result<Report> {
    if (options.is_whole && detected.format == kRootTar)
      return fail(VIR_ERR_OPERATION_FAILED, "it is an archive of files and no disk");
    if (detected.format == kRootTar) return extract(file, detected.compression, options, place, workplace);
    const auto image = TRY(convert::read_whole_image(source, detected.format));
    if (options.is_whole) return copy_whole(image, options, place.root(), workplace);
    return copy_disk(image, options, place.root(), place.work(), workplace);
  };
  auto filled = fill();
  if (!filled) {
    auto why = std::move(filled).error();
    if (why.code == VIR_ERR_INVALID_ARG) why.code = VIR_ERR_OPERATION_FAILED;  // of the image, not of the words
    return std::move(why).with_context(what);
  }
  auto report = std::move(*filled);
  report.format = detected.format;
  if (options.is_fitted) TRY(fit(place, options, report), what);
  options.say("writing it to the disk");
  TRY(place.publish());
  return report;
}

}  // namespace virtuserns::image
