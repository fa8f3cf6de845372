#include "driver/controller/overlay.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "conf/privileges.h"
#include "driver/controller/boot.h"
#include "driver/controller/overlay_parts.h"
#include "driver/kernel/apparmor.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/idmap.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

// What the kernel keeps of whoever makes an overlay, and looks at layers and changes them by.
constexpr std::uint64_t kOfOverlay =
    capability_bit(CAP_SYS_ADMIN) |                             // the mount; trusted.overlay.*
    capability_bit(CAP_DAC_OVERRIDE) |                          // the container was asked for its rights already
    capability_bit(CAP_FOWNER) | capability_bit(CAP_CHOWN) |    // what is copied up keeps
    capability_bit(CAP_FSETID) | capability_bit(CAP_SETFCAP) |  // all that it has
    capability_bit(CAP_MKNOD);                                  // marks of what is gone

// Layers as mounts of our own namespace for as long as the kernel is asked: detached ones Linux 6.1 does not take.
class Attached {
 public:
  explicit Attached(const OverlayContext& context) : context_(context) {}
  ~Attached() {
    for (; count_ > 0; --count_) {
      const std::string name = name_of(count_ - 1);
      ::umount2((context_.plan.stage_path + "/" + name).c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
      ::unlinkat(context_.stage.get(), name.c_str(), AT_REMOVEDIR);
    }
  }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

  Result<void> add(const MountFd& mount) {
    const std::string name = name_of(count_);
    if (::mkdirat(context_.stage.get(), name.c_str(), 0700) != 0) return sys_fail("create place of a layer");
    ++count_;
    return kernel::attach_mount(mount, context_.stage, name);
  }

 private:
  static std::string name_of(std::size_t i) { return "layer" + std::to_string(i); }
  const OverlayContext& context_;
  std::size_t count_ = 0;
};

// What the mounts of the layers forbid, which the kernel does not look at again.
Result<std::uint64_t> inherited(const MountFd& layer) {
  struct statvfs facts {};
  if (::fstatvfs(layer.get(), &facts) != 0) return sys_fail("look at its mount");
  return ((facts.f_flag & ST_NOSUID) != 0 ? std::uint64_t{MOUNT_ATTR_NOSUID} : 0) |
         ((facts.f_flag & ST_NOEXEC) != 0 ? std::uint64_t{MOUNT_ATTR_NOEXEC} : 0);
}

Error explain(Error error, const std::string& own) {
  const char* why = nullptr;
  switch (error.sys_errno) {
    case ELOOP:
      why = "its directories are in one another, by links perhaps: name others";
      break;
    case EBUSY:
      why = "something else writes there by an overlay: end that, or name another directory";
      break;
    case EINVAL:
      why =
          "the kernel's log (dmesg) says why; what is written must be on a file system such as ext4, xfs, btrfs or tmpfs, "
          "and not on an overlay, NFS or FUSE";
      break;
    case ENODEV:
      why = "the kernel has no overlay (module 'overlay')";
      break;
  }
  return why ? std::move(error).with_context(quote(own) + ": " + why) : std::move(error);
}

// Names of layers are those of our descriptors: nothing in them that the kernel would take for a separator, and nothing to
// be followed for a second time.
kernel::MountOptions options_of(const OverlaySourceStep& step, const OwnParts& parts,
                                const std::vector<MountFd>& lowers) {
  std::string below;
  for (const auto& lower : lowers) below += (below.empty() ? "" : ":") + std::to_string(lower.get());
  kernel::MountOptions options = {{"source", "overlay"},
                                  {"lowerdir", below},
                                  {"upperdir", std::to_string(parts.upper.get())},
                                  {"workdir", std::to_string(parts.work.get())},
                                  // A mark in the upper layer never leads to a file of another name below.
                                  {"redirect_dir", "nofollow"},
                                  {"metacopy", "off"},
                                  // No handles of files to be looked up below.
                                  {"index", "off"},
                                  {"nfs_export", "off"}};
  if (step.has_user_xattrs) options.emplace_back("userxattr", "");
  return options;
}

// ---- a child that makes it ----

struct Made {
  std::int32_t descriptor = -1;  // in the table that both share
};
using Answer = std::variant<Made, WireError>;
constexpr std::size_t kMaxAnswer = 16 * 1024;  // a pipe takes it at once

// By whose credentials, and whose profile of AppArmor, the kernel does all that it does to layers: those of the container as far as
// there are any. The profile in particular sees paths that begin at a layer: the controller's would keep the container from
// its own /etc.
Result<MountFd> make_as_container(const OverlayContext& context, const kernel::MountOptions& options,
                                  std::uint64_t attributes) {
  const DirFd descriptors(::openat(context.proc.get(), "self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!descriptors || ::fchdir(descriptors.get()) != 0) return sys_fail("enter '/proc/self/fd'");
  for (const auto& step : context.plan.inside)
    if (const auto* apparmor = std::get_if<ApparmorStep>(&step))
      TRY(kernel::change_profile(context.proc, apparmor->profile),
          "take AppArmor profile " + quote(apparmor->profile) + " (is it loaded still?)");
  const kernel::OnDiskIdentity as_container_root(context.plan.host_uid, context.plan.host_gid);
  TRY(kernel::limit_capabilities(kOfOverlay));
  return kernel::make_filesystem("overlay", options, attributes);
}

Result<MountFd> make_by_child(const OverlayContext& context, const kernel::MountOptions& options,
                              std::uint64_t attributes) {
  int pair[2];
  if (::pipe2(pair, O_CLOEXEC | O_NONBLOCK) != 0) return sys_fail("make pipe");
  const Fd ours(pair[0]), theirs(pair[1]);
  auto child = TRY(kernel::clone_process({CLONE_FILES}), "clone");
  if (child.pid == 0) {
    auto made = make_as_container(context, options, attributes);
    const auto bytes = xdr::encode(made ? Answer(Made{made->release()}) : Answer(to_wire(made.error())));
    ::_exit(::write(theirs.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) ? 0 : 1);
  }
  (void)TRY(kernel::wait_process(child.pidfd));
  std::vector<std::uint8_t> bytes(kMaxAnswer);
  const auto size = ::read(ours.get(), bytes.data(), bytes.size());
  if (size <= 0) return fail(VIR_ERR_OPERATION_FAILED, "the child that makes it was killed");
  bytes.resize(static_cast<std::size_t>(size));
  auto answer = TRY(xdr::decode_exact<Answer>(bytes, 64 * 1024));
  if (auto* error = std::get_if<WireError>(&answer)) return from_wire(std::move(*error));
  return MountFd(std::get<Made>(answer).descriptor);
}

Result<MountFd> make_overlay(const OverlaySourceStep& step, const OverlayContext& context, const OwnParts& parts,
                             const std::vector<MountFd>& lowers, std::uint64_t attributes) {
  auto made = make_by_child(context, options_of(step, parts, lowers), attributes);
  if (!made) return explain(std::move(made).error(), step.own.host_source);
  // So it does what it says when it cannot empty 'work' (dmesg knows why): a domain would find out by its first write.
  if (kernel::is_readonly_mount(*made))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                quote(step.own.host_source) +
                    ": the kernel would only mount it read-only: the file system is, or has no room or no extended "
                    "attributes, or what is in 'work' cannot be removed");
  return made;
}

}  // namespace

Result<Overlay> open_overlay(const OverlaySourceStep& step, const OverlayContext& context) {
  bool is_shifted = step.own.shift == OwnerShift::kIdmappedMount;
  for (const auto& lower : step.lowers) is_shifted = is_shifted || lower.shift == OwnerShift::kIdmappedMount;
  // Not init's: that comes later, and is another one at each boot.
  const NsFd maps =
      is_shifted ? TRY(kernel::make_map_namespace(context.proc, *TRY(find_maps(context.plan)))) : NsFd();
  const auto shift = [&](const MountFd& mount, const OverlayLayer& layer) -> Result<void> {
    if (layer.shift == OwnerShift::kAlreadyShifted) return {};
    auto shifted = kernel::set_mount_idmap(mount, maps, kernel::Depth::kTopOnly);
    if (shifted || shifted.error().sys_errno != EINVAL) return shifted;
    return std::move(shifted).error().with_context(
        "the file system has no idmapped mounts (an overlay and NFS have none): name a directory on ext4, xfs, btrfs or tmpfs");
  };
  Overlay overlay;
  Attached places(context);
  std::uint64_t attributes = MOUNT_ATTR_NODEV;
  std::vector<MountFd> lowers;
  std::optional<NewUpper> model;
  for (const auto& layer : step.lowers) {
    const std::string name = "lower " + quote(layer.host_source);
    MountFd mount = TRY(open_lower(layer, overlay.locks), name);
    if (!model) model = TRY(like(mount, layer.shift, step.own.shift, context.plan), name);
    TRY(shift(mount, layer), name);
    TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, 0, kernel::Depth::kTopOnly), name);
    TRY(places.add(mount), name);
    attributes |= TRY(inherited(mount), name);
    lowers.push_back(std::move(mount));
  }
  if (!model) return fail(VIR_ERR_INTERNAL_ERROR, "an overlay over nothing");
  Undo undo;
  OwnParts parts = TRY(open_own(step, *model, context.plan, undo));
  overlay.locks.push_back(std::move(parts.lock));
  TRY(shift(parts.mount, step.own), quote(step.own.host_source));
  TRY(places.add(parts.mount), quote(step.own.host_source));
  overlay.mount = TRY(make_overlay(step, context, parts, lowers, attributes | TRY(inherited(parts.mount))));
  undo.commit();
  return overlay;
}

}  // namespace virtuserns::controller
