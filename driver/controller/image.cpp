#include "driver/controller/image.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <algorithm>

#include "conf/base/text.h"
#include "driver/controller/jail.h"
#include "driver/kernel/mount.h"

namespace virtuserns::controller {

namespace {

constexpr int kProbeTimeoutMs = 30'000;

struct Option {
  const char *key, *value;
};
struct KnownFilesystem {
  std::string_view name;
  bool is_only_readonly;
  Option always;
  // Nothing is replayed into what is not to be written: it is seen as it was before what the journal has of it.
  Option when_readonly;
};

// errors=: the super block of an ext file system may ask for a panic of the machine.
// nouuid: a copy of a disk has the same, and xfs would refuse the second.
constexpr KnownFilesystem kFilesystems[] = {{"ext4", false, {"errors", "remount-ro"}, {"noload", ""}},
                                            {"xfs", false, {"nouuid", ""}, {"norecovery", ""}},
                                            {"btrfs", false, {}, {"rescue", "nologreplay"}},
                                            {"squashfs", true, {}, {}},
                                            {"erofs", true, {}, {}}};

void add(kernel::MountOptions& options, const Option& option) {
  if (option.key) options.emplace_back(option.key, option.value);
}

const KnownFilesystem* find_filesystem(std::string_view name) {
  for (const auto& known : kFilesystems)
    if (known.name == name) return &known;
  return nullptr;
}

Result<FoundFilesystem> probe(const ImageSourceStep& step, const ImageContext& context, const Fd& disk) {
  const Fd readable = TRY(reopen(context.proc, disk, O_RDONLY));
  const int file = readable.get();
  auto jailed = TRY(start_in_jail(
      {context.helpers.prober,
       {std::to_string(step.partition), std::to_string(step.offset_bytes), std::to_string(step.size_bytes)},
       std::span(&file, 1),
       {},
       OpensFiles::kNo,
       context.helpers.filter,
       context.stage}));
  const auto said = TRY(await_jailed(std::move(jailed), kProbeTimeoutMs), "look for a file system");
  if (said.status != 0)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                said.errors.empty() ? "look for a file system: ended by status " + std::to_string(said.status)
                                    : printable(trim(said.errors), 1024));
  return parse_found(said.output);
}

Result<MountFd> mount_found(const ImageSourceStep& step, const FoundFilesystem& found, const std::string& device) {
  const auto& known = *find_filesystem(found.type);
  if (known.is_only_readonly && !step.is_readonly)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "a file system of type " + quote(found.type) + " cannot be written: add <readonly/>");
  if (!step.subvolume.empty() && found.type != "btrfs")
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "a file system of type " + quote(found.type) +
                                                " has no subvolumes: leave out subvolume=" + quote(step.subvolume));
  kernel::MountOptions options = {{"source", device}};
  add(options, known.always);
  if (step.is_readonly) {
    options.emplace_back("ro", "");
    add(options, known.when_readonly);
  }
  if (!step.subvolume.empty()) options.emplace_back("subvol", step.subvolume);
  auto mount = kernel::make_filesystem(
      found.type, options, MOUNT_ATTR_NODEV | (step.is_readonly ? MOUNT_ATTR_RDONLY : 0), kernel::Instance::kOwn);
  if (!mount && mount.error().sys_errno == EBUSY)
    return std::move(mount).error().with_context("it is mounted already, or is part of something that is");
  if (!mount && mount.error().sys_errno == ENODEV)
    return std::move(mount).error().with_context("the kernel has no file system " + quote(found.type));
  return mount;
}

// The descriptor is what locks it, and a loop device on it keeps that.
Result<Fd> open_raw(const ImageSourceStep& step, const ImageContext& context) {
  const auto image = TRY(find_image(step.chain.front().path));
  if (image.is_block != step.is_block)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, step.is_block ? "it is no block device" : "it is no regular file");
  const int flags = step.is_readonly ? O_RDONLY : O_RDWR;
  auto disk = reopen(context.proc, image.file, flags | (step.is_block ? O_EXCL : 0));
  if (!disk && disk.error().sys_errno == EBUSY)
    return std::move(disk).error().with_context("it is in use: mounted, or part of another device");
  Fd file = TRY(std::move(disk));
  if (!step.is_block) TRY(kernel::lock_image(file, access_of(step)));
  return file;
}

}  // namespace

Result<FoundFilesystem> parse_found(const std::string& text) {
  const auto words = split_blanks(text);
  const auto offset = words.size() == 3 ? parse_number<std::uint64_t>(words[1]) : std::nullopt;
  const auto size = words.size() == 3 ? parse_number<std::uint64_t>(words[2]) : std::nullopt;
  if (!offset || !size || *size == 0)
    return fail(VIR_ERR_INTERNAL_ERROR, "look for a file system: malformed answer " + quote(text));
  if (!find_filesystem(words[0]))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "it holds " + quote(words[0]) +
                    ", which is no file system for a domain: known are ext2 to ext4, xfs, btrfs, "
                    "squashfs and erofs");
  return FoundFilesystem{std::string(words[0]), *offset, *size};
}

Result<MountFd> open_image(const ImageSourceStep& step, const ImageContext& context) {
  const auto& image = step.chain.front();
  const Fd disk = image.format == "raw"
                      ? TRY(open_raw(step, context))
                      : TRY(serve_disk(step, context.helpers, context.proc, context.stage, context.running));
  const auto found = TRY(probe(step, context, disk));
  // Also of a whole block device: by its path another one could be mounted than was looked at. Until it is mounted its
  // descriptor keeps it; afterwards the mount does, and frees it by itself.
  const auto loop = TRY(
      kernel::attach_loop({disk, image.path, access_of(step), found.offset_bytes, found.size_bytes}), "loop device");
  return mount_found(step, found, loop.path);
}

}  // namespace virtuserns::controller
