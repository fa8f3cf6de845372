#include "driver/controller/plug_mounts.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/controller/boot.h"
#include "driver/controller/enter.h"
#include "driver/kernel/apparmor.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/mountinfo.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

using kernel::Symlinks;
using kernel::TargetKind;

// Of a file system of the container: one that it serves itself (FUSE) may never answer. The stem waits, and so does whoever wants
// anything else of the domain.
constexpr int kErrandTimeoutMs = 5'000;

using Errand = std::function<Result<void>()>;
using Deed = std::function<Result<std::uint64_t>()>;  // the mount that it is about, or 0

// Like a joiner of enter.h. Before `first` it is in a mount namespace of its own that is the container root's, with a copy of all that
// the stem has mounted; after it, in the container's.
Result<std::uint64_t> visit(const Host& host, const Inside& inside, pid_t stem, const Errand& first,
                            const Deed& then) {
  if (!inside.profile.empty())
    TRY(kernel::change_profile(host.proc, inside.profile),
        "take AppArmor profile " + quote(inside.profile) + " (is it loaded still?)");
  TRY(become(inside.host_uid, inside.host_gid), "host ids");
  TRY(kernel::limit_capabilities(0));
  TRY(kernel::enter_namespace(inside.user, CLONE_NEWUSER));
  TRY(become(0, 0), "ids of the container");
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // and below: what a change of ids undoes
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (::getppid() != stem) return fail(VIR_ERR_OPERATION_FAILED, "the stem is gone");
  ::umask(022);
  if (first) {
    if (::unshare(CLONE_NEWNS) != 0) return sys_fail("make a mount namespace");
    TRY(first());
  }
  TRY(kernel::enter_namespace(inside.mount, CLONE_NEWNS));
  return then();
}

[[noreturn]] void run(const Host& host, const Inside& inside, const SocketFd& channel, pid_t stem,
                      const Errand& first, const Deed& then) {
  const auto closed = close_all_but({0, 1, 2, channel.get(), host.proc.get(), inside.user.get(), inside.mount.get()});
  const auto done = closed ? visit(host, inside, stem, first, then) : Result<std::uint64_t>(closed.error());
  (void)send_packet(channel.get(),
                    xdr::encode(done ? ChildMessage(Mounted{*done}) : ChildMessage(to_wire(done.error()))));
  ::_exit(0);
}

// Those that hang in a file system that its server has stopped to serve cannot even be killed before that ends, with the container. What
// they were at may still come to pass then.
constexpr std::size_t kMostHanging = 8;
struct Hanging {
  PidFd process;
  Inside inside;
  std::optional<PluggedMount> attached;  // or about to be
};
std::vector<Hanging>& hanging() {
  static std::vector<Hanging> all;
  return all;
}

Result<NsFd> copy_of(const NsFd& ns) {
  NsFd copy(::fcntl(ns.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) return sys_fail("keep namespace");
  return copy;
}

void leave_behind(PidFd process, const Inside& inside, std::optional<PluggedMount> attached) {
  (void)kernel::send_signal(process, SIGKILL);
  auto user = copy_of(inside.user), mount = copy_of(inside.mount);
  Inside kept{
      user ? std::move(*user) : NsFd(), mount ? std::move(*mount) : NsFd(), {}, inside.host_uid, inside.host_gid, {}};
  hanging().push_back({std::move(process), std::move(kept), std::move(attached)});
}

// `attached`: what is there if it was killed before it could say so.
Result<std::uint64_t> send(const Host& host, const Inside& inside, const Errand& first, const Deed& then,
                           const std::optional<PluggedMount>& attached = std::nullopt) {
  (void)tend_errands(host);
  if (hanging().size() >= kMostHanging)
    return fail(VIR_ERR_RESOURCE_BUSY, "file systems of the container do not answer");
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make socket pair");
  const SocketFd ours(pair[0]);
  SocketFd theirs(pair[1]);
  const pid_t stem = ::getpid();
  auto cloned = TRY(kernel::clone_process({}));
  if (cloned.pid == 0) run(host, inside, theirs, stem, first, then);
  theirs.reset();
  pollfd entry{ours.get(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, kErrandTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (ready <= 0) {
    leave_behind(std::move(cloned.pidfd), inside, attached);
    return fail(VIR_ERR_OPERATION_TIMEOUT, "a file system of the container does not answer");
  }
  const auto packet = recv_packet(ours.get());
  auto message = packet && !packet->bytes.empty()
                     ? xdr::decode_exact<ChildMessage>(packet->bytes, 64 * 1024)
                     : Error{VIR_ERR_OPERATION_FAILED, ECONNRESET, "the helper was killed"};
  if (!message) {
    leave_behind(std::move(cloned.pidfd), inside, attached);
    (void)tend_errands(host);
    return std::move(message).error();
  }
  (void)kernel::wait_process(cloned.pidfd);
  if (auto* error = std::get_if<WireError>(&*message)) return from_wire(std::move(*error));
  const auto* mounted = std::get_if<Mounted>(&*message);
  return mounted ? mounted->id : 0;
}

Result<std::uint64_t> id_of(const MountFd& mount) {
  struct statx facts {};
  if (::statx(mount.get(), "", AT_EMPTY_PATH, STATX_MNT_ID, &facts) != 0) return sys_fail("look at the mount");
  return (facts.stx_mask & STATX_MNT_ID) != 0 ? facts.stx_mnt_id : 0;
}

Result<DirFd> open_root() {
  DirFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return sys_fail("open the root");
  return root;
}

// Of a directory of the caller's own tree. Not by /proc, which here is the container's.
Result<std::string> path_here(const DirFd& place) {
  char path[4096];
  if (::fchdir(place.get()) != 0 || !::getcwd(path, sizeof path) || ::chdir("/") != 0)
    return sys_fail("find the place of the target");
  return std::string(path);
}

Symlinks links_of(PlaceKind kind) { return kind == PlaceKind::kNode ? Symlinks::kRefuse : Symlinks::kFollowInRoot; }

constexpr int kMostMoves = 32;  // of a mount, by a container that is at it, between a look and an unmount

// Where it is now, by the list of mounts: a descriptor would be in its own way, and a name may lead elsewhere. Nothing: the container has unmounted
// it. Its number, where it is known, tells it from others of the same file system.
const kernel::MountLine* find_here(const std::vector<kernel::MountLine>& mounts, const PluggedMount& mount) {
  const kernel::MountLine* found = nullptr;
  for (const auto& line : mounts) {
    if (line.device != mount.identity.device) continue;
    if (mount.identity.id != 0) {
      if (line.id == mount.identity.id) return &line;
    } else if (line.root == mount.identity.root && (!found || line.place == mount.target)) {
      found = &line;
    }
  }
  return found;
}

bool is_covered(const std::vector<kernel::MountLine>& mounts, const kernel::MountLine& mount) {
  return std::any_of(mounts.begin(), mounts.end(), [&](const auto& line) {
    return line.parent == mount.id && line.id != mount.id && line.place == mount.place;
  });
}

Result<void> detach_here(const Host& host, const PluggedMount& mount) {
  PluggedMount wanted = mount;
  for (int i = 0; i < kMostMoves; ++i) {
    const auto mounts = TRY(kernel::list_own_mounts(host.proc));
    const auto* found = find_here(mounts, wanted);
    if (!found) return {};
    wanted.identity.id = found->id;  // until that one is gone: the name may lead elsewhere by then
    if (is_covered(mounts, *found)) continue;
    const std::string& path = found->place;
    if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) {
      struct stat st {};
      if (mount.kind == PlaceKind::kNode && ::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
        ::unlink(path.c_str());
      continue;
    }
    if (errno == EBUSY)
      return Error{VIR_ERR_RESOURCE_BUSY, EBUSY,
                   quote(path) + " is busy: a process of the container has a file or its working directory in there"};
    if (errno != EINVAL && errno != ENOENT) return sys_fail("unmount " + quote(path));
  }
  return fail(VIR_ERR_RESOURCE_BUSY,
              "the container moves " + quote(mount.target) + " about, or has mounted something else on it");
}

}  // namespace

PlaceKind kind_of(const ParentStep& step) {
  return std::holds_alternative<DeviceNodeStep>(step) ? PlaceKind::kNode : PlaceKind::kFolder;
}

bool is_loose(const ParentStep& step) {
  return std::visit(
      [](const auto& s) {
        if constexpr (requires { s.is_loose; })
          return s.is_loose;
        else
          return false;
      },
      step);
}

Result<void> attach_here(const MountFd& mount, const std::string& target, PlaceKind kind) {
  const DirFd root = TRY(open_root());
  const auto target_kind = kind == PlaceKind::kNode ? TargetKind::kFile : TargetKind::kDirectory;
  const DirFd place = TRY(kernel::make_target(root, target, target_kind, links_of(kind)));
  if (kind == PlaceKind::kFolder) TRY(refuse_reserved(TRY(path_here(place)), ""));
  TRY(kernel::attach_mount(mount, place), "mount on " + quote(target));
  return {};
}

Result<MountIdentity> attach_inside(const Host& host, const Inside& inside, const MountFd& mount,
                                    const std::string& target, PlaceKind kind) {
  const char* const stage = kind == PlaceKind::kNode ? kPlugFile : kPlugFolder;
  const Fd place(::open(stage, O_PATH | O_CLOEXEC));
  if (!place) return sys_fail("open " + quote(stage));
  TRY(kernel::attach_mount(mount, place));
  Undo undo;
  undo.add([stage] { ::umount2(stage, MNT_DETACH | UMOUNT_NOFOLLOW); });
  MountIdentity identity = TRY(identity_at(host.proc, stage));
  MountFd copy;
  const auto take_copy = [&]() -> Result<void> {
    copy = TRY(kernel::clone_mount(stage, kernel::Depth::kWithMountsBelow));
    return {};
  };
  const auto attach = [&]() -> Result<std::uint64_t> {
    TRY(attach_here(copy, target, kind));
    return id_of(copy);
  };
  identity.id = TRY(send(host, inside, take_copy, attach, PluggedMount{identity, target, kind}));
  return identity;
}

Result<void> detach_inside(const Host& host, const Inside& inside, const PluggedMount& mount) {
  const auto detach = [&]() -> Result<std::uint64_t> {
    TRY(detach_here(host, mount));
    return 0;
  };
  auto done = send(host, inside, {}, detach);
  // Nobody knows how far it got. Once more, for what is left to do.
  if (!done && done.error().sys_errno == ECONNRESET) done = send(host, inside, {}, detach);
  (void)TRY(std::move(done));
  return {};
}

Result<void> do_inside(const Host& host, const Inside& inside, const std::function<Result<void>()>& deed) {
  (void)TRY(send(host, inside, {}, [&]() -> Result<std::uint64_t> {
    TRY(deed());
    return 0;
  }));
  return {};
}

bool tend_errands(const Host& host) {
  for (std::size_t i = 0; i < hanging().size();) {
    const auto status = kernel::wait_process(hanging()[i].process, 0);
    if (status && !*status) {
      ++i;
      continue;
    }
    const Hanging ended = std::move(hanging()[i]);
    hanging().erase(hanging().begin() + static_cast<std::ptrdiff_t>(i));
    if (ended.attached && ended.inside.mount) (void)detach_inside(host, ended.inside, *ended.attached);
  }
  return !hanging().empty();
}

}  // namespace virtuserns::controller
