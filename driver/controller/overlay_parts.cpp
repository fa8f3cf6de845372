#include "driver/controller/overlay_parts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "conf/base/text.h"
#include "driver/kernel/mount.h"

namespace virtuserns::controller {

namespace {

constexpr int kMaxHeight = 4096;
constexpr const char *kUpper = "upper", *kWork = "work", *kUpperInMaking = ".upper.new", *kWorkInMaking = ".work.new";

Result<DirFd> open_directory(const std::string& path) {
  DirFd place(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place && errno == ENOTDIR) return sys_fail("it is no directory");
  if (!place) return sys_fail("open");
  return place;
}

// What is opened already, and not by its name.
Fd reopen(const Fd& folder) { return Fd(::openat(folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

// Never through a link, nor onto another file system. No descriptor: there is none of that name.
Result<DirFd> open_part(const Fd& own, const char* name) {
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  DirFd part(static_cast<int>(::syscall(SYS_openat2, own.get(), name, &how, sizeof how)));
  if (part || errno == ENOENT) return part;
  const char* remedy = ": remove it, or name another directory";
  if (errno == ELOOP) return sys_fail(quote(name) + " is a symbolic link, which is not followed" + remedy);
  if (errno == ENOTDIR) return sys_fail(quote(name) + " is no directory" + remedy);
  return sys_fail("open " + quote(name));
}

// Complete or not there, whoever dies.
Result<DirFd> make_part(const Fd& own, const char* name, const char* name_in_making, const NewUpper& how) {
  const auto failed = [&](const char* what) { return sys_fail(std::string(what) + " " + quote(name)); };
  ::unlinkat(own.get(), name_in_making, AT_REMOVEDIR);  // of somebody who was killed
  if (::mkdirat(own.get(), name_in_making, 0700) != 0) return failed("create");
  Undo undo;
  undo.add([&] { ::unlinkat(own.get(), name_in_making, AT_REMOVEDIR); });
  DirFd part = TRY(open_part(own, name_in_making));
  const Fd folder = reopen(part);
  // The mode after the owner, whose change takes bits away.
  if (!folder || ::fchown(folder.get(), how.uid, how.gid) != 0) return failed("own");
  if (::fchmod(folder.get(), how.mode) != 0) return failed("set mode of");
  if (::renameat2(own.get(), name_in_making, own.get(), name, RENAME_NOREPLACE) != 0) return failed("create");
  undo.commit();
  return part;
}

// Whoever has it locked in the other way runs.
Result<Fd> lock(const Fd& place, int operation) {
  Fd work = reopen(place);
  if (!work) return sys_fail("open 'work'");
  if (::flock(work.get(), operation | LOCK_NB) == 0) return work;
  if (errno != EWOULDBLOCK) return sys_fail("lock 'work'");
  return fail(
      VIR_ERR_RESOURCE_BUSY,
      operation == LOCK_EX
          ? "it is in use by another domain, which writes to it or lies over it: end that, or name another directory"
          : "it is what another domain writes to: end that, or name a directory that nobody writes to");
}

// The kernel's own leave nothing else there.
Result<void> check_work(const Fd& work, const NewUpper& how) {
  struct stat found {};
  if (::fstat(work.get(), &found) != 0) return sys_fail("stat 'work'");
  if (found.st_uid != how.uid || found.st_gid != how.gid)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "'work' belongs to " + std::to_string(found.st_uid) + ":" + std::to_string(found.st_gid) +
                    " and is not of the domain's making: remove it, or name another directory");
  if ((found.st_mode & 077) != 0 && ::fchmod(work.get(), 0700) != 0) return sys_fail("keep others out of 'work'");
  Fd copy = reopen(work);
  DIR* list = copy ? ::fdopendir(copy.get()) : nullptr;
  if (!list) return sys_fail("list 'work'");
  (void)copy.release();
  Undo undo;
  undo.add([&] { ::closedir(list); });
  while (const dirent* entry = ::readdir(list)) {
    const std::string_view name(entry->d_name);
    if (name != "." && name != ".." && name != "work" && name != "index")
      return fail(
          VIR_ERR_CONFIG_UNSUPPORTED,
          "'work' holds " + quote(name) +
              ", which no overlay has put there: it is the kernel's alone, so empty it, or name another directory");
  }
  return {};
}

// Without a place for marks the kernel mounts all the same, and then fails what would need one (EIO).
Result<void> check_user_xattrs(const Fd& work) {
  constexpr const char* kProbe = "user.virtuserns";
  if (::fsetxattr(work.get(), kProbe, "", 0, 0) == 0) {
    ::fremovexattr(work.get(), kProbe);
    return {};
  }
  if (errno != EOPNOTSUPP) return sys_fail("set an extended attribute of 'work'");
  return sys_fail(
      "the file system has no extended attributes of users (tmpfs has them since Linux 6.6): name a directory on "
      "ext4, xfs or btrfs");
}

// Where owners are shifted, a set-user-id program of container root's is one of host root's on disk: then the wall around it is
// host root's as well, at every start, whoever has made what is in it.
Result<void> check_owner(const DirFd& place) {
  struct stat st {};
  if (::fstat(place.get(), &st) != 0) return sys_fail("stat");
  if (st.st_uid == 0) return {};
  return fail(VIR_ERR_CONFIG_UNSUPPORTED,
              "it belongs to user " + std::to_string(st.st_uid) +
                  ", for whom set-user-id programs of the domain's root would be host root's: chown it to root, or "
                  "name another directory");
}

// Nobody but its owner and root come by.
Result<void> keep_private(const std::shared_ptr<const DirFd>& place, Undo& undo) {
  const auto set_mode = [place](mode_t mode) {
    const Fd folder = reopen(*place);
    return folder && ::fchmod(folder.get(), mode) == 0;
  };
  struct stat st {};
  if (::fstat(place->get(), &st) != 0) return sys_fail("stat");
  if ((st.st_mode & 07777) == 0700) return {};
  if (!set_mode(0700)) return sys_fail("keep others out");
  undo.add([set_mode, mode = st.st_mode & 07777] { (void)set_mode(mode); });
  return {};
}

bool is_same(const Fd& a, const Fd& b) {
  struct stat first {
  }, second{};
  return ::fstat(a.get(), &first) == 0 && ::fstat(b.get(), &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

// No descriptor: `place` in `parent` is no `upper`, or one that no overlay has.
Result<DirFd> work_beside(const DirFd& parent, const DirFd& place) {
  const DirFd upper(::openat(parent.get(), kUpper, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!upper || !is_same(upper, place)) return DirFd();
  DirFd work(::openat(parent.get(), kWork, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!work && errno != ENOENT) return sys_fail("open 'work' beside it");
  return work;
}

}  // namespace

Result<const IdMaps*> find_maps(const LaunchPlan& plan) {
  for (const auto& step : plan.from_parent)
    if (const auto* found = std::get_if<IdMapStep>(&step)) return &found->maps;
  return fail(VIR_ERR_INTERNAL_ERROR, "the plan has no id map");
}

Result<MountFd> open_lower(const OverlayLayer& layer, std::vector<Fd>& locks) {
  const DirFd place = TRY(open_directory(layer.host_source));
  DirFd at(::fcntl(place.get(), F_DUPFD_CLOEXEC, 3));
  for (int height = 0; height < kMaxHeight; ++height) {
    DirFd parent(::openat(at.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!parent) return sys_fail("open what it is in");
    if (is_same(parent, at)) break;  // the host's root
    if (const DirFd work = TRY(work_beside(parent, at)); work) {
      // The way to it is one that the other domain's root can change.
      if (height > 0)
        return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                    "it is in 'upper' of an overlay, where that domain's root writes: name 'upper' itself, or a "
                    "directory elsewhere");
      locks.push_back(TRY(lock(work, LOCK_SH)));
    }
    at = std::move(parent);
  }
  return kernel::clone_mount(place, "", kernel::Depth::kTopOnly);
}

Result<NewUpper> like(const MountFd& lower, OwnerShift of_lower, OwnerShift of_own, const LaunchPlan& plan) {
  struct stat st {};
  if (::fstat(lower.get(), &st) != 0) return sys_fail("stat");
  const auto* maps = TRY(find_maps(plan));
  // An id that the domain does not have becomes container root's. Where owners are shifted an id on disk is that inside.
  const auto on_own = [&](const IdMapLines& lines, std::uint32_t id) {
    std::uint32_t inside = of_lower == OwnerShift::kIdmappedMount ? id : to_inside(lines, id).value_or(0);
    if (!to_host(lines, inside)) inside = 0;
    return of_own == OwnerShift::kIdmappedMount ? inside : to_host(lines, inside).value_or(0);
  };
  return NewUpper{on_own(maps->uid, st.st_uid), on_own(maps->gid, st.st_gid), st.st_mode & 07777};
}

Result<OwnParts> open_own(const OverlaySourceStep& step, const NewUpper& model, const LaunchPlan& plan, Undo& undo) {
  const OverlayLayer& layer = step.own;
  const std::string context = quote(layer.host_source);
  OwnParts parts;
  parts.place = std::make_shared<DirFd>(TRY(open_directory(layer.host_source), context));
  parts.mount = TRY(kernel::clone_mount(*parts.place, "", kernel::Depth::kTopOnly), context);
  const bool is_shifted = layer.shift == OwnerShift::kIdmappedMount;
  const NewUpper of_work{is_shifted ? 0 : plan.host_uid, is_shifted ? 0 : plan.host_gid, 0700};
  if (is_shifted) {
    TRY(check_owner(*parts.place), context);
    TRY(keep_private(parts.place, undo), context);
  }
  parts.upper = TRY(open_part(parts.mount, kUpper), context);
  parts.work = TRY(open_part(parts.mount, kWork), context);
  // By whose ids `upper` is, is said by the owner of 'work': container root can change that of `upper`.
  if (parts.upper && !parts.work)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                context +
                    ": it has 'upper' and no 'work': make an empty one with mode 0700, of root where the files in "
                    "'upper' have the ids of inside, and of " +
                    std::to_string(plan.host_uid) + ":" + std::to_string(plan.host_gid) +
                    " where they have those of the host");
  const bool is_work_new = !parts.work;
  if (is_work_new) parts.work = TRY(make_part(parts.mount, kWork, kWorkInMaking, of_work), context);
  parts.lock = TRY(lock(parts.work, LOCK_EX), context);
  // Not before it is ours: somebody else may have been first.
  if (is_work_new)
    undo.add([place = parts.place] {
      ::unlinkat(place->get(), "work/work", AT_REMOVEDIR);  // of the kernel's
      ::unlinkat(place->get(), kWork, AT_REMOVEDIR);
    });
  TRY(check_work(parts.lock, of_work), context);
  if (step.has_user_xattrs) TRY(check_user_xattrs(parts.lock), context);
  if (!parts.upper) {
    TRY(keep_private(parts.place, undo), context);
    parts.upper = TRY(make_part(parts.mount, kUpper, kUpperInMaking, model), context);
    undo.add([place = parts.place] { ::unlinkat(place->get(), kUpper, AT_REMOVEDIR); });
  }
  return parts;
}

}  // namespace virtuserns::controller
