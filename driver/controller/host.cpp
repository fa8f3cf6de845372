#include "driver/controller/host.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/controller/image.h"
#include "driver/controller/network.h"
#include "driver/controller/overlay.h"
#include "driver/controller/protocol.h"
#include "driver/controller/scope.h"
#include "driver/kernel/console.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/device_filter.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/user_directory.h"

namespace virtuserns::controller {

namespace {

constexpr int kRemoveTimeoutMs = 10'000;

// All writes of the step, in order; a file that comes again at once is not opened again.
Result<void> write_files(const CgroupStep& step, const kernel::Cgroup& group) {
  const std::string* open_name = nullptr;
  Fd open_file;
  for (const auto& write : step.writes) {
    if (!open_name || *open_name != write.file) {
      auto opened = group.open_for_writing(write.file);
      if (!opened && step.is_optional) continue;
      open_file = TRY(std::move(opened));
      open_name = &write.file;
    }
    const auto& value = write.value;
    if (::write(open_file.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()) &&
        !step.is_optional)
      return sys_fail("write " + quote(value) + " to " + quote(write.file));
  }
  return {};
}

Result<void> make_group(const CgroupStep& step, const LaunchPlan& plan, Host& host) {
  if (step.is_v2 && !step.scope.empty()) TRY(enter_supervisor(step, host.proc));
  auto made = kernel::Cgroup::make({step.mount, step.is_v2, step.controllers, step.path});
  if (!made) {
    if (step.is_optional) return {};
    return std::move(made).error();
  }
  auto& group = host.groups.emplace_back(std::move(made).value());
  TRY(write_files(step, group), "group " + quote(step.mount + "/" + step.path));
  if (step.device_rules)
    if (auto limited = kernel::limit_devices(group, *step.device_rules); !limited && !step.is_optional)
      return std::move(limited).error().with_context("group " + quote(step.mount + "/" + step.path));
  if (step.delegate) TRY(group.delegate(plan.host_uid, plan.host_gid));
  return {};
}

// Readable for all, as groups mostly are: the controller itself has no other right to them later (cage.h).
Result<void> make_groups(const LaunchPlan& plan, Host& host) {
  const mode_t mask = ::umask(022);
  Result<void> made;
  for (const auto& step : plan.before)
    if (const auto* group = std::get_if<CgroupStep>(&step); group && made) made = make_group(*group, plan, host);
  ::umask(mask);
  return made;
}

// Puts `mount` at /src/<id> of the stage, on an empty directory or file as it needs.
Result<void> keep_source(Host& host, const DirFd& stage, std::uint32_t id, const MountFd& mount) {
  Source source;
  if (::fstat(mount.get(), &source.facts) != 0) return sys_fail("stat source");
  source.place = "/src/" + std::to_string(id);
  const char* place = source.place.c_str() + 1;
  if (source.is_directory() ? ::mkdirat(stage.get(), place, 0700) != 0
                            : ::mknodat(stage.get(), place, S_IFREG | 0600, 0) != 0)
    return sys_fail("create place of a source");
  TRY(kernel::attach_mount(mount, stage, place));
  host.sources[id] = std::move(source);
  return {};
}

Result<MountFd> open_source(const SourceStep& step) {
  MountFd mount = TRY(kernel::clone_mount(
      step.host_source, step.is_recursive ? kernel::Depth::kWithMountsBelow : kernel::Depth::kTopOnly));
  if (step.is_readonly)
    TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_RDONLY, 0, kernel::Depth::kWithMountsBelow));
  return mount;
}

// Of a domain with an owner. What is looked at and what is mounted are one and the same: the descriptor.
Result<MountFd> open_source_as_user(const SourceStep& step, const LaunchPlan& plan) {
  const DirFd directory = TRY(kernel::open_directory_as(step.host_source, step.user->uid, step.user->gid));
  struct stat st {};
  if (::fstat(directory.get(), &st) != 0) return sys_fail("stat");
  const std::string belongs = "it belongs to " + std::to_string(st.st_uid) + ":" + std::to_string(st.st_gid);
  bool is_root = false, is_of_domain = false;
  for (const auto& other : plan.from_parent) {
    if (const auto* root = std::get_if<RootStep>(&other)) is_root = root->source_id == step.id || is_root;
    if (const auto* map = std::get_if<IdMapStep>(&other))
      for (const auto& range : host_ranges(map->maps.uid))
        is_of_domain = range.contains({st.st_uid, 1}) || is_of_domain;
  }
  if (is_root && (st.st_uid != plan.host_uid || st.st_gid != plan.host_gid))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, belongs + " and not to the domain's root, " +
                                                std::to_string(plan.host_uid) + ":" + std::to_string(plan.host_gid) +
                                                ": make it as the owner, by 'virt-userns-rootfs create --first " +
                                                std::to_string(plan.host_uid) + "'");
  if (!is_of_domain && st.st_uid != step.user->uid)
    return fail(VIR_ERR_ACCESS_DENIED, belongs + " and neither to the domain's owner, " +
                                           std::to_string(step.user->uid) + ", nor to an id of the domain");
  MountFd mount = TRY(kernel::clone_mount(directory, "", kernel::Depth::kTopOnly));
  if (step.is_readonly) TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_RDONLY, 0, kernel::Depth::kTopOnly));
  return mount;
}

Result<MountFd> open_source(const SourceStep& step, const LaunchPlan& plan) {
  return step.user ? open_source_as_user(step, plan) : open_source(step);
}

Result<void> take_source(const SourceStep& step, const LaunchPlan& plan, Host& host, const DirFd& stage) {
  const std::string context = "source " + quote(step.host_source);
  const MountFd mount = TRY(open_source(step, plan), context);
  TRY(keep_source(host, stage, step.id, mount), context);
  return {};
}

Result<void> take_overlay(const OverlaySourceStep& step, const LaunchPlan& plan, Host& host, const DirFd& stage) {
  auto overlay = TRY(open_overlay(step, {plan, host.proc, stage}), "overlay");
  for (auto& lock : overlay.locks) host.overlay_locks.push_back(std::move(lock));
  TRY(keep_source(host, stage, step.id, overlay.mount), "overlay");
  host.sources[step.id].is_overlay = true;
  return {};
}

Result<MountFd> open_device(const DeviceSourceStep& step) {
  MountFd mount = TRY(kernel::clone_mount(step.host_source, kernel::Depth::kTopOnly));
  struct stat st {};
  if (::fstat(mount.get(), &st) != 0) return sys_fail("stat");
  if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "it is no device node");
  return mount;
}

Result<void> take_device(const DeviceSourceStep& step, Host& host, const DirFd& stage) {
  const std::string context = "device " + quote(step.host_source);
  auto mount = open_device(step);
  if (!mount && step.is_optional && mount.error().sys_errno == ENOENT) {
    host.sources[step.id] = {};
    return {};
  }
  if (!mount) return std::move(mount).error().with_context(context);
  TRY(keep_source(host, stage, step.id, *mount), context);
  return {};
}

Result<void> take_image(const ImageSourceStep& step, const ImageContext& context, Host& host, const DirFd& stage) {
  const std::string name = "image " + quote(step.chain.front().path);
  const MountFd mount = TRY(open_image(step, context), name);
  TRY(keep_source(host, stage, step.id, mount), name);
  host.sources[step.id].is_image = true;
  return {};
}

Result<void> take_images(const LaunchPlan& plan, Host& host, const DirFd& stage) {
  const ImageHelpersStep* helpers = nullptr;
  for (const auto& step : plan.before) {
    if (const auto* found = std::get_if<ImageHelpersStep>(&step)) helpers = found;
    const auto* image = std::get_if<ImageSourceStep>(&step);
    if (!image) continue;
    if (!helpers) return fail(VIR_ERR_INTERNAL_ERROR, "the plan has images and nothing that reads them");
    TRY(take_image(*image, {*helpers, host.proc, plan.stage_path, host.storage}, host, stage));
  }
  return {};
}

// What is written must not only be on its way when those who serve the images end. Mounts of the container's are gone, with all
// its processes; should somebody else still hold one (a namespace that was handed out), its files are at least complete.
void release_images(const std::map<std::uint32_t, Source>& sources) {
  for (const auto& [id, source] : sources) {
    if (!source.is_image) continue;
    if (const Fd place(::open(source.place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); place)
      ::syncfs(place.get());
    if (::umount2(source.place.c_str(), UMOUNT_NOFOLLOW) != 0) ::umount2(source.place.c_str(), MNT_DETACH);
  }
}

// Before the locks go: whoever has them next is to find nobody else there.
void release_overlays(Host& host) {
  for (const auto& [id, source] : host.sources)
    if (source.is_overlay) ::umount2(source.place.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  host.overlay_locks.clear();
}

Result<DirFd> make_stage(const std::string& path) {
  const Fd place(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!place) return sys_fail("open stage " + quote(path));
  // 0711: the child passes through it to the tree when it is container root already, a stranger to these ids.
  MountFd tmpfs =
      TRY(kernel::make_filesystem("tmpfs", {{"size", "1m"}, {"mode", "0711"}}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  TRY(kernel::attach_mount(tmpfs, place), "stage " + quote(path));
  DirFd stage(tmpfs.release());
  for (const char* name : {"src", "tree", "empty", kPlugFolder + 1, kPlugNodes + 1, kLoosePath + 1})
    if (::mkdirat(stage.get(), name, 0755) != 0) return sys_fail(std::string("create '") + name + "' of the stage");
  if (::fchmodat(stage.get(), kLoosePath + 1, 0711, 0) != 0) return sys_fail("open a folder of the stage");
  if (::mknodat(stage.get(), kPlugFile + 1, S_IFREG | 0600, 0) != 0) return sys_fail("create a file of the stage");
  return stage;
}

// Outside of the initial user namespace a new /proc or /sys may show no more than one that can be seen in the mount namespace
// (user_namespaces(7)): so the ones that are there stay in sight, of us, not of the container.
Result<void> keep_visible(const DirFd& stage) {
  for (const std::string name : {"proc", "sys"}) {
    const std::string place = "visible-" + name;
    if (::mkdirat(stage.get(), place.c_str(), 0700) != 0) return sys_fail("create " + quote(place) + " of the stage");
    // In a container of our own the one without masks, which lies in /dev.
    auto mount =
        kernel::clone_mount(std::string("/dev/") + kBareFolder + "/" + name, kernel::Depth::kWithMountsBelow);
    if (!mount) mount = kernel::clone_mount("/" + name, kernel::Depth::kWithMountsBelow);
    if (!mount) return std::move(mount).error();
    TRY(kernel::attach_mount(*mount, stage, place));
  }
  return {};
}

// What masks are made of. The host's node, because the container's own could be anything (CVE-2025-31133).
Result<void> make_masks(const DirFd& stage) {
  if (::mknodat(stage.get(), "null", S_IFREG | 0600, 0) != 0) return sys_fail("create 'null' of the stage");
  const MountFd node = TRY(kernel::clone_mount("/dev/null", kernel::Depth::kTopOnly));
  TRY(kernel::attach_mount(node, stage, "null"));
  const MountFd empty =
      TRY(kernel::make_filesystem("tmpfs", {{"size", "4k"}, {"mode", "0555"}},
                                  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  return kernel::attach_mount(empty, stage, "empty");
}

// Later a log that cannot be opened stops nothing (Consoles): here is the place to say so. Looked at before it is opened,
// because merely to open a device can do something.
Result<void> check_log(const HostFile& log, const std::string& what_log) {
  const auto refuse = [&](const char* what) {
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                what_log + " is " + what + ": name a regular file, or one that is still to be made");
  };
  struct stat st {};
  if (::fstatat(log.dir.get(), log.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISDIR(st.st_mode)) return refuse("a directory");
    if (S_ISLNK(st.st_mode)) return refuse("a symbolic link, which is not followed");
    if (!S_ISREG(st.st_mode)) return refuse("no regular file");
  }
  (void)TRY(log.open_log(false), what_log);
  return {};
}

Result<Fd> open_terminal(const std::string& path, Host& host) {
  auto pty = TRY(kernel::open_host_pty());
  HostFile name = TRY(HostFile::open(path));
  name.remove();
  const std::string device = "/dev/pts/" + std::to_string(pty.number);
  if (::symlinkat(device.c_str(), name.dir.get(), name.name.c_str()) != 0) return sys_fail("link " + quote(path));
  host.terminal_names.push_back(std::move(name));
  return std::move(pty.master);
}

Result<void> make_keeper(const LaunchPlan& plan, Host& host) {
  std::vector<HostFile> logs;
  bool is_needed = false;
  for (const auto& step : plan.from_parent) {
    is_needed |= std::holds_alternative<UserLinkStep>(step) || std::holds_alternative<LentLinkStep>(step);
    const auto* link = std::get_if<UserLinkStep>(&step);
    if (!link) continue;
    logs.emplace_back();
    if (link->log_file.empty()) continue;
    logs.back() = TRY(HostFile::open(link->log_file), "log of " + quote(link->guest_name));
    TRY(check_log(logs.back(), "log of " + quote(link->guest_name) + ": " + quote(link->log_file)));
  }
  if (is_needed) host.network = TRY(start_keeper(plan, std::move(logs)));
  return {};
}

// In our own mount namespace, so that it is detached from the host's tree with all of that: ".." leads nowhere.
Result<void> open_proc(Host& host) {
  host.proc = DirFd(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!host.proc) return sys_fail("open '/proc'");
  host.pid_ns = TRY(kernel::open_namespace(host.proc, ::getpid(), "pid"));
  host.net_ns = TRY(kernel::open_namespace(host.proc, ::getpid(), "net"));
  return {};
}

// A namespace that belongs to another user namespace above ours can be left, but not entered again. The network's, which nothing
// in here needs, is then one of our own; and whoever has to leave the pid namespace is somebody who does not come back.
Result<void> keep_returnable(Host& host) {
  if (!kernel::enter_namespace(host.pid_ns, CLONE_NEWPID)) host.pid_ns.reset();
  if (kernel::enter_namespace(host.net_ns, CLONE_NEWNET)) return {};
  if (::unshare(CLONE_NEWNET) != 0) return sys_fail("make a network namespace");
  host.net_ns = TRY(kernel::open_namespace(host.proc, ::getpid(), "net"));
  return {};
}

Result<void> open_own(const LaunchPlan& plan, Host& host) {
  host.stage = TRY(HostFile::open(plan.stage_path));
  if (!plan.socket_path.empty()) host.socket = TRY(HostFile::open(plan.socket_path));
  if (!plan.plug_path.empty()) host.plug = TRY(HostFile::open(plan.plug_path));
  if (!plan.exit_record_path.empty()) host.exit_record = TRY(HostFile::open(plan.exit_record_path));
  for (const auto& console : plan.consoles) {
    host.terminals.emplace_back();
    if (!console.terminal_path.empty())
      host.terminals.back() = TRY(open_terminal(console.terminal_path, host), "terminal of a console");
    host.console_logs.emplace_back();
    if (console.log_file.empty()) continue;
    host.console_logs.back() = TRY(HostFile::open(console.log_file), "console log");
    TRY(check_log(host.console_logs.back(), "console log " + quote(console.log_file)));
  }
  return {};
}

}  // namespace

void remove_place(const std::string& path) {
  if (::rmdir(path.c_str()) != 0) ::unlink(path.c_str());
}

Result<void> Host::prepare(const LaunchPlan& plan, Host& host) {
  TRY(open_own(plan, host));
  TRY(make_keeper(plan, host), "network keeper");  // while all namespaces are still the host's
  TRY(kernel::make_private_mount_namespace());
  TRY(open_proc(host));
  const bool is_initial = TRY(kernel::is_initial_user_namespace(host.proc));
  if (!is_initial) TRY(keep_returnable(host));
  Undo undo;
  // Until it is our root the stage is a mount point of this very namespace, whose directory could not be removed.
  undo.add([&] {
    ::umount2(plan.stage_path.c_str(), MNT_DETACH);
    host.sources.clear();  // with it; their places would be paths of the host
  });
  const DirFd stage = TRY(make_stage(plan.stage_path));
  TRY(make_masks(stage), "stage");
  if (!is_initial) TRY(keep_visible(stage), "stage");
  for (const auto& step : plan.before) {
    if (const auto* source = std::get_if<SourceStep>(&step)) TRY(take_source(*source, plan, host, stage));
    if (const auto* device = std::get_if<DeviceSourceStep>(&step)) TRY(take_device(*device, host, stage));
    if (const auto* overlay = std::get_if<OverlaySourceStep>(&step)) TRY(take_overlay(*overlay, plan, host, stage));
  }
  // After the sources, which need no group: systemd makes the scope meanwhile.
  if (needs_scope(plan)) TRY(await_scope(kChannelFd));
  TRY(make_groups(plan, host));
  // In the scope, where what serves them belongs.
  TRY(take_images(plan, host, stage));
  // Not later, while the namespaces are made: with the old root still in place the kernel takes us for chrooted and
  // refuses a user namespace (user_namespaces(7)).
  TRY(kernel::change_root(plan.stage_path), "stage");
  undo.commit();
  return {};
}

Result<std::uint32_t> Host::add_source(const MountFd& mount) {
  const DirFd top(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!top) return sys_fail("open the stage");
  const std::uint32_t id = sources.empty() ? 0 : sources.rbegin()->first + 1;
  auto kept = keep_source(*this, top, id, mount);
  if (kept) return id;
  remove_place("/src/" + std::to_string(id));
  return std::move(kept).error();
}

void Host::forget_source(std::uint32_t id) {
  const auto found = sources.find(id);
  if (found == sources.end()) return;
  const auto& place = found->second.place;
  ::umount2(place.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  remove_place(place);
  sources.erase(found);
}

Result<std::vector<MountFd>> open_sources(const LaunchPlan& plan) {
  std::vector<MountFd> mounts;
  for (const auto& step : plan.before) {
    if (const auto* source = std::get_if<SourceStep>(&step))
      mounts.push_back(TRY(open_source(*source, plan), "source " + quote(source->host_source)));
    else if (const auto* device = std::get_if<DeviceSourceStep>(&step))
      mounts.push_back(TRY(open_device(*device), "device " + quote(device->host_source)));
    else
      return fail(VIR_ERR_INTERNAL_ERROR, "a source of this kind is opened at a start only");
  }
  return mounts;
}

std::vector<int> Host::descriptors() const {
  std::vector<int> all = {proc.get(), pid_ns.get(), net_ns.get(), network.get()};
  for (const auto& group : groups)
    for (const int fd : group.descriptors()) all.push_back(fd);
  for (const auto& daemon : storage) all.push_back(daemon.process.get());
  for (const auto& lock : overlay_locks) all.push_back(lock.get());
  for (const auto* file : {&socket, &plug, &exit_record, &stage}) all.push_back(file->dir.get());
  for (const auto& log : console_logs) all.push_back(log.dir.get());
  for (const auto& name : terminal_names) all.push_back(name.dir.get());
  for (const auto& terminal : terminals) all.push_back(terminal.get());
  return all;
}

void Host::keep_only_views() {
  pid_ns.reset();
  net_ns.reset();
  network.reset();
  for (auto* file : {&socket, &plug, &exit_record, &stage}) file->dir.reset();
  for (auto& log : console_logs) log.dir.reset();
  for (auto& name : terminal_names) name.dir.reset();
  overlay_locks.clear();
  sources.clear();
}

Result<void> Host::release() {
  if (network) (void)detach_links(network);
  network.reset();
  auto removed = kernel::remove_cgroups(groups, kRemoveTimeoutMs);
  release_images(sources);
  release_overlays(*this);
  end_storage(storage);
  socket.remove();
  plug.remove();
  for (const auto& name : terminal_names) name.remove();
  // A directory that was a mount point in our namespace only may be removed (rmdir(2), since Linux 3.19).
  if (stage.dir) ::unlinkat(stage.dir.get(), stage.name.c_str(), AT_REMOVEDIR);
  return removed;
}

const kernel::Cgroup* Host::find_group(const std::string& controller) const {
  for (const auto& group : groups)
    if (group.has_controller(controller)) return &group;
  for (const auto& group : groups)
    if (group.is_v2() && controller.empty()) return &group;
  return nullptr;
}

const kernel::Cgroup* Host::freezer() const {
  const kernel::Cgroup* found = nullptr;
  for (const auto& group : groups)
    if (group.can_freeze() && (!found || !group.is_v2())) found = &group;
  return found;
}

}  // namespace virtuserns::controller
