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
#include <functional>
#include <vector>

#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/controller/boot.h"
#include "driver/controller/enter.h"
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

// Like a joiner of enter.h. Before `first` it is in a mount namespace of its own that is the container root's, with a copy of all that
// the stem has mounted; after it, in the container's.
Result<void> visit(const Inside& inside, pid_t stem, const Errand& first, const Errand& then) {
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
                      const Errand& first, const Errand& then) {
  auto done = close_all_but({0, 1, 2, channel.get(), host.proc.get(), inside.user.get(), inside.mount.get()});
  if (done) done = visit(inside, stem, first, then);
  (void)send_packet(channel.get(),
                    xdr::encode(done ? ChildMessage(AboutToExec{}) : ChildMessage(to_wire(done.error()))));
  ::_exit(0);
}

struct Outcome {
  bool is_told = false;  // else it was killed by somebody, and nobody knows how far it got
  Result<void> result;
};

// Those that hang in a file system that its server has stopped to serve cannot even be killed before that ends, with the container.
constexpr std::size_t kMostHanging = 8;
std::vector<PidFd>& hanging() {
  static std::vector<PidFd> processes;
  std::erase_if(processes, [](const PidFd& process) {
    const auto status = kernel::wait_process(process, 0);
    return !status || *status;
  });
  return processes;
}

Outcome send(const Host& host, const Inside& inside, const Errand& first, const Errand& then) {
  if (hanging().size() >= kMostHanging)
    return {true, fail(VIR_ERR_RESOURCE_BUSY, "file systems of the container do not answer")};
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return {true, sys_fail("make socket pair")};
  const SocketFd ours(pair[0]);
  SocketFd theirs(pair[1]);
  const pid_t stem = ::getpid();
  auto cloned = kernel::clone_process({});
  if (!cloned) return {true, std::move(cloned).error()};
  if (cloned->pid == 0) run(host, inside, theirs, stem, first, then);
  PidFd process = std::move(cloned->pidfd);
  theirs.reset();
  pollfd entry{ours.get(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, kErrandTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (ready <= 0) {
    (void)kernel::send_signal(process, SIGKILL);
    hanging().push_back(std::move(process));
    return {true, fail(VIR_ERR_OPERATION_TIMEOUT, "a file system of the container does not answer")};
  }
  const auto packet = recv_packet(ours.get());
  auto message = packet && !packet->bytes.empty() ? xdr::decode_exact<ChildMessage>(packet->bytes, 64 * 1024)
                                                  : fail(VIR_ERR_OPERATION_FAILED, "the helper was killed");
  (void)kernel::wait_process(process);
  if (!message) return {false, std::move(message).error()};
  if (auto* error = std::get_if<WireError>(&*message)) return {true, from_wire(std::move(*error))};
  return {true, {}};
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

// Where it is now, what was put at `target` first. By the list of mounts, because a descriptor would be in its own way and a name may lead
// elsewhere. Others of the domain may show the same of the same file system.
Result<std::vector<std::string>> find_here(const Host& host, const PluggedMount& mount) {
  std::vector<std::string> found;
  for (const auto& line : TRY(kernel::list_own_mounts(host.proc))) {
    if (line.device != mount.identity.device || line.root != mount.identity.root) continue;
    if (std::find(mount.others.begin(), mount.others.end(), line.place) != mount.others.end()) continue;
    found.insert(line.place == mount.target ? found.begin() : found.end(), line.place);
  }
  return found;
}

// Whether it is what is to be seen there, or something lies on it.
Result<bool> is_on_top(const Host& host, const std::string& path, const MountIdentity& identity) {
  const auto mounts = TRY(kernel::list_own_mounts(host.proc));
  const auto last =
      std::find_if(mounts.rbegin(), mounts.rend(), [&](const auto& line) { return line.place == path; });
  return last != mounts.rend() && last->device == identity.device && last->root == identity.root;
}

Result<void> detach_here(const Host& host, const PluggedMount& mount) {
  for (int i = 0; i < kMostMoves; ++i) {
    const auto places = TRY(find_here(host, mount));
    if (places.empty()) return {};
    const std::string& path = places.front();
    if (!TRY(is_on_top(host, path, mount.identity))) continue;
    if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) {
      if (TRY(find_here(host, mount)).size() >= places.size()) continue;  // the name led elsewhere by then
      struct stat st {};
      if (mount.kind == PlaceKind::kNode && ::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
        ::unlink(path.c_str());
      return {};
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

Result<Inside> Inside::open(const LaunchPlan& plan, const Host& host, pid_t init) {
  Inside inside;
  inside.host_uid = plan.host_uid;
  inside.host_gid = plan.host_gid;
  inside.user = TRY(kernel::open_namespace(host.proc, init, "user"));
  inside.mount = TRY(kernel::open_namespace(host.proc, init, "mnt"));
  inside.net = TRY(kernel::open_namespace(host.proc, init, "net"));
  return inside;
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
  auto [is_told, attached] = send(host, inside, take_copy, [&] { return attach_here(copy, target, kind); });
  if (!is_told) (void)detach_inside(host, inside, {identity, target, kind, {}});
  TRY(std::move(attached));
  return identity;
}

Result<void> detach_inside(const Host& host, const Inside& inside, const PluggedMount& mount) {
  return send(host, inside, {}, [&] { return detach_here(host, mount); }).result;
}

}  // namespace virtuserns::controller
