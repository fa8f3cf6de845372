#include "driver/controller/tree.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/reserved_target.h"
#include "driver/controller/node_folder.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/mountinfo.h"

namespace virtuserns::controller {

using kernel::Depth;
using kernel::Symlinks;
using kernel::TargetKind;

namespace {

constexpr const char* kNodeName = ".node";
constexpr std::uint64_t kNoSuidDevExec = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

// The container's group for its terminals, as a host id; container root's when the plan has none or it is not mapped.
gid_t tty_group(const LaunchPlan& plan, const DevStep& step) {
  for (const auto& other : plan.from_parent)
    if (const auto* maps = std::get_if<IdMapStep>(&other); maps && step.pts_gid)
      return to_host(maps->maps.gid, *step.pts_gid).value_or(plan.host_gid);
  return plan.host_gid;
}

// "null" of "/dev/null"; nothing for what is deeper or elsewhere.
std::optional<std::string> name_in_dev(const std::string& target) {
  constexpr std::string_view kDev = "/dev/";
  if (!target.starts_with(kDev) || target.size() == kDev.size() || target.find('/', kDev.size()) != std::string::npos)
    return std::nullopt;
  std::string name = target.substr(kDev.size());
  if (name == "." || name == "..") return std::nullopt;
  return name;
}

Result<std::string> name_below(const std::string& top, const std::string& path) {
  if (!path.starts_with(top + "/") || path.size() == top.size() + 1)
    return fail(VIR_ERR_INTERNAL_ERROR, quote(path) + " is not below " + quote(top));
  return path.substr(top.size() + 1);
}

Error reserved(std::string_view target) {
  return fail(VIR_ERR_CONFIG_UNSUPPORTED,
              "the target leads to " + quote(target) + " of the container: " + kReservedTargetRemedy);
}

bool is_directory(const Fd& place) {
  struct stat st {};
  return ::fstat(place.get(), &st) == 0 && S_ISDIR(st.st_mode);
}

}  // namespace

Result<std::string> path_of(const DirFd& host_proc, const Fd& place) {
  char path[4096];
  const auto size =
      ::readlinkat(host_proc.get(), ("self/fd/" + std::to_string(place.get())).c_str(), path, sizeof path);
  if (size < 0 || size == sizeof path) return sys_fail("find the place of the target");
  return std::string(path, static_cast<std::size_t>(size));
}

Result<void> refuse_reserved(std::string_view path, std::string_view top) {
  if (!path.starts_with(top) || (top.empty() && !path.starts_with('/')))
    return fail(VIR_ERR_INTERNAL_ERROR, "the target is outside of the tree");
  const auto inside = path.substr(top.size());
  // A cover of the root would take all of them away.
  if (inside.empty() || inside == "/") return reserved("/");
  if (is_reserved_target(inside)) return reserved(inside);
  return {};
}

Result<MountIdentity> identity_at(const DirFd& host_proc, const std::string& place) {
  const auto mounts = TRY(kernel::list_own_mounts(host_proc));
  const auto found =
      std::find_if(mounts.rbegin(), mounts.rend(), [&](const auto& line) { return line.place == place; });
  if (found == mounts.rend()) return fail(VIR_ERR_INTERNAL_ERROR, "nothing is mounted at " + quote(place));
  return MountIdentity{found->device, found->root};
}

std::string loose_path(std::size_t number) { return std::string(kLoosePath) + "/" + std::to_string(number); }

Result<void> Tree::set_aside(const MountFd& mount, const std::string& target) {
  const std::string path = loose_path(loose_.size());
  if (is_directory(mount) ? ::mkdir(path.c_str(), 0700) != 0 : ::mknod(path.c_str(), S_IFREG | 0600, 0) != 0)
    return sys_fail("create place of a loose mount");
  const Fd place(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!place) return sys_fail("open place of a loose mount");
  TRY(kernel::attach_mount(mount, place));
  loose_[target] = TRY(identity_at(host_.proc, path));
  return {};
}

void Tree::clear() {
  // Once for the tree and everything on it; more often when a failed boot had mounted twice.
  while (::umount2(kTreePath, MNT_DETACH) == 0) {
  }
  for (std::size_t number = 0;; ++number) {
    const std::string path = loose_path(number);
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno == ENOENT) break;
    remove_place(path);
  }
}

Result<const Source*> Tree::find_source(std::uint32_t id) const {
  const auto found = host_.sources.find(id);
  if (found == host_.sources.end())
    return fail(VIR_ERR_INTERNAL_ERROR, "the plan opens no source " + std::to_string(id));
  return &found->second;
}

Result<MountFd> Tree::clone_source(const Source& source, OwnerShift shift) const {
  MountFd mount = TRY(kernel::clone_mount(source.place, Depth::kWithMountsBelow));
  if (shift == OwnerShift::kIdmappedMount) TRY(kernel::set_mount_idmap(mount, user_ns_, Depth::kWithMountsBelow));
  // A device node in an image belongs to container root once owners are shifted: without this it would open the disk.
  TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_NODEV, 0, Depth::kWithMountsBelow));
  return mount;
}

// `is_system`: /dev, /proc, /sys. Their place must be a plain directory: behind a symbolic link masks would cover
// something else than what is mounted (CVE-2019-19921), and anything else means a tampered tree.
Result<void> Tree::attach_at(const MountFd& mount, const std::string& target, bool is_system) {
  if (!root_) return fail(VIR_ERR_INTERNAL_ERROR, "the plan mounts before its root");
  const auto kind = is_directory(mount) ? TargetKind::kDirectory : TargetKind::kFile;
  // Before the short way into /dev, which goes by name.
  if (!is_system && is_reserved_target(target)) return reserved(target);
  if (const auto name = name_in_dev(target); dev_ && name) return attach_in_dev(mount, *name, kind);
  const kernel::OnDiskIdentity as_container_root(plan_.host_uid, plan_.host_gid);
  const DirFd place =
      TRY(kernel::make_target(root_, target, kind, is_system ? Symlinks::kRefuse : Symlinks::kFollowInRoot));
  if (!is_system) TRY(refuse_reserved(TRY(path_of(host_.proc, place)), kTreePath));
  TRY(kernel::attach_mount(mount, place), "mount on " + quote(target));
  return {};
}

// Directly in /dev nothing has to be walked: it is ours alone until init runs.
Result<void> Tree::attach_in_dev(const MountFd& mount, const std::string& name, TargetKind kind) {
  const auto made = kind == TargetKind::kDirectory ? ::mkdirat(dev_.get(), name.c_str(), 0755)
                                                   : ::mknodat(dev_.get(), name.c_str(), S_IFREG | 0644, 0);
  if (made != 0 && errno != EEXIST) return sys_fail("/dev: create " + quote(name));
  if (made == 0 && ::fchownat(dev_.get(), name.c_str(), plan_.host_uid, plan_.host_gid, AT_SYMLINK_NOFOLLOW) != 0)
    return sys_fail("/dev: own " + quote(name));
  TRY(kernel::attach_mount(mount, dev_, name), "/dev");
  return {};
}

Result<void> Tree::apply(const RootStep& step) {
  const Source& source = *TRY(find_source(step.source_id), "root");
  if (!source.is_directory()) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "root: the source is no directory");
  MountFd mount = TRY(clone_source(source, step.shift), "root");
  if (step.is_readonly) {
    // The top stays writable until every target exists (finish); what is mounted below it never becomes so.
    TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_RDONLY, 0, Depth::kWithMountsBelow), "root");
    TRY(kernel::set_mount_attributes(mount, 0, MOUNT_ATTR_RDONLY, Depth::kTopOnly), "root");
  }
  is_root_readonly_ = step.is_readonly;
  const Fd place(::open(kTreePath, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place) return sys_fail("root: open its place");
  TRY(kernel::attach_mount(mount, place), "root");
  root_ = DirFd(mount.release());
  return {};
}

Result<void> Tree::finish() {
  if (!root_) return fail(VIR_ERR_INTERNAL_ERROR, "the plan has no root");
  if (!is_root_readonly_) return {};
  const MountFd top(::open(kTreePath, O_PATH | O_DIRECTORY | O_CLOEXEC));
  TRY(kernel::set_mount_attributes(top, MOUNT_ATTR_RDONLY, 0, Depth::kTopOnly), "root");
  if (!kernel::is_readonly_mount(top)) return fail(VIR_ERR_OPERATION_FAILED, "root: did not become read-only");
  return {};
}

Result<MountFd> Tree::make(const BindStep& step) const {
  const Source& source = *TRY(find_source(step.source_id));
  MountFd mount = TRY(clone_source(source, step.shift));
  // All of the tree or an error: the kernel changes no mount unless it can change every one (mount_setattr(2)).
  if (step.is_readonly) TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_RDONLY, 0, Depth::kWithMountsBelow));
  return mount;
}

Result<void> Tree::apply(const BindStep& step) {
  const std::string context = "filesystem " + quote(step.target);
  const MountFd mount = TRY(make(step), context);
  TRY(step.is_loose ? set_aside(mount, step.target) : attach_at(mount, step.target, false), context);
  if (step.is_readonly && !kernel::is_readonly_mount(mount))
    return fail(VIR_ERR_OPERATION_FAILED, context + ": did not become read-only");
  return {};
}

Result<void> Tree::apply(const InnerBindStep& step) {
  const std::string context = "filesystem " + quote(step.target);
  if (!root_) return fail(VIR_ERR_INTERNAL_ERROR, "the plan mounts before its root");
  const DirFd from = TRY(kernel::resolve_in_root(root_, step.source, Symlinks::kFollowInRoot), context);
  const MountFd mount = TRY(kernel::clone_mount(from, "", Depth::kWithMountsBelow), context);
  if (step.is_readonly)
    TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_RDONLY, 0, Depth::kWithMountsBelow), context);
  TRY(attach_at(mount, step.target, false), context);
  return {};
}

Result<MountFd> Tree::make(const TmpfsStep& step) const {
  char mode[16];
  std::snprintf(mode, sizeof mode, "%o", step.mode & 07777);
  kernel::MountOptions options = {
      {"mode", mode}, {"uid", std::to_string(plan_.host_uid)}, {"gid", std::to_string(plan_.host_gid)}};
  if (step.size_bytes != 0) options.emplace_back("size", std::to_string(step.size_bytes));
  return kernel::make_filesystem("tmpfs", options,
                                 MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (step.is_readonly ? MOUNT_ATTR_RDONLY : 0));
}

Result<void> Tree::apply(const TmpfsStep& step) {
  const std::string context = "tmpfs " + quote(step.target);
  const MountFd mount = TRY(make(step), context);
  TRY(step.is_loose ? set_aside(mount, step.target) : attach_at(mount, step.target, false), context);
  return {};
}

Result<void> Tree::attach_console(const MountFd& pts, const std::string& name, std::uint32_t number) {
  const MountFd slave = TRY(kernel::clone_mount(pts, std::to_string(number), Depth::kTopOnly));
  return attach_in_dev(slave, name, TargetKind::kFile);
}

Result<void> Tree::apply(const DevStep& step) {
  const std::string uid = std::to_string(plan_.host_uid), gid = std::to_string(plan_.host_gid);
  MountFd tmpfs =
      TRY(kernel::make_filesystem(
              "tmpfs", {{"mode", "0755"}, {"size", std::to_string(step.size_bytes)}, {"uid", uid}, {"gid", gid}},
              kNoSuidDevExec),
          "/dev");
  TRY(attach_at(tmpfs, "/dev", true));
  dev_ = DirFd(tmpfs.release());
  // max: the kernel's limit for ptys is for the whole machine, so one container must not be able to take them all.
  MountFd devpts = TRY(kernel::make_filesystem("devpts",
                                               {{"newinstance", ""},
                                                {"ptmxmode", "0666"},
                                                {"mode", "0620"},
                                                {"gid", std::to_string(tty_group(plan_, step))},
                                                {"max", "1024"}},
                                               MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
                       "/dev/pts");
  TRY(attach_at(devpts, "/dev/pts", true));
  static constexpr const char* kLinks[][2] = {{"/proc/self/fd", "fd"},       {"/proc/self/fd/0", "stdin"},
                                              {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
                                              {"/proc/kcore", "core"},       {"pts/ptmx", "ptmx"}};
  // Also because a pty belongs to whoever opens its master.
  const kernel::OnDiskIdentity as_container_root(plan_.host_uid, plan_.host_gid);
  for (const auto& [to, name] : kLinks)
    if (::symlinkat(to, dev_.get(), name) != 0) return sys_fail(std::string("/dev: link '") + name + "'");
  // The mode in a call of its own: the umask would take bits of it away.
  for (const char* name : {"shm", "mqueue"})
    if (::mkdirat(dev_.get(), name, 01777) != 0 || ::fchmodat(dev_.get(), name, 01777, 0) != 0)
      return sys_fail(std::string("/dev: create '") + name + "'");
  for (std::uint32_t i = 0; i < step.console_count; ++i) {
    auto pty = TRY(kernel::open_pty(devpts), "console " + std::to_string(i));
    if (i == 0) TRY(attach_console(devpts, "console", pty.number));
    TRY(attach_console(devpts, "tty" + std::to_string(i + 1), pty.number));
    consoles_.push_back(std::move(pty));
  }
  devpts_ = Fd(devpts.release());
  return {};
}

// The host's node belongs to the host's root, which is nobody inside: a node of the container root's own, on a tmpfs that is
// not reached by it (the mount of /dev has no devices). Which devices is for the plan and its cgroups.
Result<MountFd> Tree::make_own_node(const struct stat& host_node, const DirFd& folder) const {
  if (::mknodat(folder.get(), kNodeName, (host_node.st_mode & S_IFMT) | 0600, host_node.st_rdev) != 0)
    return sys_fail("create node");
  if (::fchownat(folder.get(), kNodeName, plan_.host_uid, plan_.host_gid, AT_SYMLINK_NOFOLLOW) != 0)
    return sys_fail("own node");
  MountFd mount = TRY(kernel::clone_mount(folder, kNodeName, Depth::kTopOnly));
  TRY(kernel::set_mount_attributes(mount, 0, MOUNT_ATTR_NODEV, Depth::kTopOnly));
  return mount;
}

Result<MountFd> Tree::make(const DeviceNodeStep& step, const DirFd& folder) const {
  const Source& source = *TRY(find_source(step.source_id));
  const bool is_for_everybody = (source.facts.st_mode & 0006) == 0006;
  return is_for_everybody ? kernel::clone_mount(source.place, Depth::kTopOnly) : make_own_node(source.facts, folder);
}

Result<void> Tree::apply(const DeviceNodeStep& step) {
  const std::string context = "device " + quote(step.target);
  if (TRY(find_source(step.source_id), context)->place.empty()) return {};  // an optional one
  if (!dev_) return fail(VIR_ERR_INTERNAL_ERROR, "the plan has devices before its /dev");
  if (step.is_loose) {
    const auto folder = TRY(NodeFolder::make(), context);
    TRY(set_aside(TRY(make(step, folder.dir()), context), step.target), context);
    return {};
  }
  const auto mount = make(step, dev_);
  auto attached = mount ? attach_at(*mount, step.target, true) : Result<void>(mount.error());
  (void)::unlinkat(dev_.get(), kNodeName, 0);  // the mount keeps it
  TRY(std::move(attached), context);
  return {};
}

// Below the top of a /proc or /sys that was just made no container has changed anything: names need no walk from the root.
Result<void> Tree::mask(const MountFd& top, const std::string& top_path, const std::vector<std::string>& paths) {
  for (const auto& path : paths) {
    const auto name = TRY(name_below(top_path, path));
    struct stat st {};
    if (::fstatat(top.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) continue;
      return sys_fail("mask " + quote(path));
    }
    const MountFd cover = TRY(kernel::clone_mount(S_ISDIR(st.st_mode) ? kEmptyPath : kNullPath, Depth::kTopOnly),
                              "mask " + quote(path));
    TRY(kernel::attach_mount(cover, top, name), "mask");
  }
  return {};
}

Result<void> Tree::attach_bare(const MountFd& mount, const char* name) {
  if (!dev_) return fail(VIR_ERR_INTERNAL_ERROR, "the plan has a bare file system before its /dev");
  const std::string folder = kBareFolder, place = folder + "/" + name;
  const MountFd bare = TRY(kernel::clone_mount(mount, "", Depth::kTopOnly), name);
  const kernel::OnDiskIdentity as_container_root(plan_.host_uid, plan_.host_gid);
  if (::mkdirat(dev_.get(), folder.c_str(), 0755) != 0 && errno != EEXIST)
    return sys_fail("/dev: create " + quote(folder));
  if (::mkdirat(dev_.get(), place.c_str(), 0755) != 0) return sys_fail("/dev: create " + quote(place));
  return kernel::attach_mount(bare, dev_, place);
}

Result<void> Tree::apply(const ProcStep& step, const NamespaceMounts& mounts) {
  const MountFd& proc = mounts.proc;
  TRY(attach_at(proc, "/proc", true));
  if (step.is_also_bare) TRY(attach_bare(proc, "proc"), "bare /proc");
  // nullopt: this kernel has no such file.
  const auto clone_inner = [&](const std::string& name) -> Result<std::optional<MountFd>> {
    auto mount = kernel::clone_mount(proc, name, Depth::kTopOnly);
    if (mount) return std::optional(std::move(mount).value());
    if (mount.error().sys_errno == ENOENT) return std::optional<MountFd>();
    return std::move(mount).error().with_context("/proc");
  };
  // Cloned while all of /proc is still writable, attached after the read-only mounts that would cover them.
  std::vector<std::pair<std::string, MountFd>> writable;
  for (const auto& path : step.writable) {
    const auto name = TRY(name_below("/proc", path));
    if (auto inner = TRY(clone_inner(name))) writable.emplace_back(name, std::move(*inner));
  }
  for (const auto& path : step.readonly) {
    const auto name = TRY(name_below("/proc", path));
    const auto inner = TRY(clone_inner(name));
    if (!inner) continue;
    TRY(kernel::set_mount_attributes(*inner, MOUNT_ATTR_RDONLY, 0, Depth::kTopOnly), "read-only " + quote(path));
    TRY(kernel::attach_mount(*inner, proc, name), "read-only");
  }
  for (const auto& [name, mount] : writable) TRY(kernel::attach_mount(mount, proc, name), "writable");
  return mask(proc, "/proc", step.masked);
}

Result<void> Tree::apply(const SysStep& step, const NamespaceMounts& mounts) {
  TRY(attach_at(mounts.sys, "/sys", true));
  if (step.is_also_bare) TRY(attach_bare(mounts.sys, "sys"), "bare /sys");
  return mask(mounts.sys, "/sys", step.masked);
}

Result<void> Tree::apply(const CgroupMountStep& step, const NamespaceMounts& mounts) {
  if (step.is_readonly)
    TRY(kernel::set_mount_attributes(mounts.cgroup, MOUNT_ATTR_RDONLY, 0, Depth::kTopOnly), "cgroup");
  return attach_at(mounts.cgroup, step.target, true);
}

Result<void> Tree::apply(const MqueueStep& step, const NamespaceMounts& mounts) {
  return attach_at(mounts.mqueue, step.target, true);
}

}  // namespace virtuserns::controller
