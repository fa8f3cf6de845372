// B: masks that lie where they should, mounts that nobody can undo, and the ways out of a root.
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "tools/drill/probes/probe.h"

namespace drill {

namespace {

// Whatever else is in /proc and /sys, these tell of the host or reach it.
constexpr const char* kSecretFiles[] = {
    "/proc/kcore",        "/proc/kmsg",       "/proc/keys",       "/proc/key-users",     "/proc/timer_list",
    "/proc/sched_debug",  "/proc/kallsyms",   "/proc/interrupts", "/proc/slabinfo",      "/proc/vmallocinfo",
    "/proc/pagetypeinfo", "/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats", "/proc/sysrq-trigger"};
constexpr const char* kSecretDirectories[] = {"/proc/acpi",           "/proc/scsi",        "/proc/asound",
                                              "/sys/firmware",        "/sys/kernel/debug", "/sys/kernel/tracing",
                                              "/sys/kernel/security", "/sys/fs/bpf",       "/sys/fs/pstore",
                                              "/sys/power",           "/sys/kernel/slab"};

Verdict masked_files() {
  int absent = 0, empty = 0;
  for (const char* path : kSecretFiles) {
    struct stat st {};
    if (::stat(path, &st) != 0) {
      ++absent;
      continue;
    }
    // A mask is /dev/null. Anything else is the real one, whether or not its mode lets us read it.
    if (!S_ISCHR(st.st_mode)) return failed(std::string(path) + " is there");
    ++empty;
  }
  return held(std::to_string(empty) + " masked, " + std::to_string(absent) + " are not of this kernel");
}

Verdict masked_directories() {
  int absent = 0, empty = 0;
  for (const char* path : kSecretDirectories) {
    struct stat st {};
    if (::stat(path, &st) != 0) {
      ++absent;
      continue;
    }
    if (const auto names = names_in(path); !names.empty()) return failed(std::string(path) + " shows " + names[0]);
    ++empty;
  }
  return held(std::to_string(empty) + " empty, " + std::to_string(absent) + " are not of this kernel");
}

Verdict proc_is_proc() {
  // A link or a directory of the image in its place would make every mask a lie (CVE-2019-16884).
  bool has_proc = false, has_sys = false;
  for (const auto& mount : mounts()) {
    has_proc |= mount.place == "/proc" && mount.type == "proc";
    has_sys |= mount.place == "/sys" && mount.type == "sysfs";
  }
  if (!has_proc || !has_sys) return failed(std::string(has_proc ? "/sys" : "/proc") + " is no mount of its own");
  return held("/proc and /sys are mounts");
}

bool is_below(const std::string& path, const char* top) { return path.starts_with(std::string(top) + "/"); }

// Mounts that stand between the container and its host. What an init mounts by itself is its own to unmount.
bool is_wall(const MountLine& mount) {
  if (mount.place == "/proc" || mount.place == "/sys" || mount.place == "/dev") return true;
  if (is_below(mount.place, "/sys/fs/cgroup") || mount.place == "/sys/fs/cgroup" ||
      is_below(mount.place, "/proc/sys/fs/binfmt_misc"))
    return false;
  return is_below(mount.place, "/proc") || is_below(mount.place, "/sys");
}

std::vector<MountLine> walls() {
  std::vector<MountLine> found;
  for (const auto& mount : mounts())
    if (is_wall(mount)) found.push_back(mount);
  return found;
}

Verdict without_mounts(const std::function<Verdict(const std::vector<MountLine>&)>& run) {
  const auto all = walls();
  if (all.empty()) return failed("nothing is mounted on /proc and /sys");
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  return run(all);
}

Verdict umount_walls() {
  return without_mounts([](const auto& all) {
    for (auto mount = all.rbegin(); mount != all.rend(); ++mount)
      for (const int flags : {0, static_cast<int>(MNT_DETACH)})
        if (::umount2(mount->place.c_str(), flags) == 0) return failed("unmounted " + mount->place);
    return held(std::to_string(all.size()) + " mounts stay");
  });
}

Verdict move_walls() {
  return without_mounts([](const auto& all) {
    const auto place = scratch_directory();
    if (place.empty()) return not_applicable("no place to move to");
    for (auto mount = all.rbegin(); mount != all.rend(); ++mount) {
      if (::mount(mount->place.c_str(), place.c_str(), nullptr, MS_MOVE, nullptr) == 0)
        return failed("moved " + mount->place);
      if (::syscall(SYS_move_mount, AT_FDCWD, mount->place.c_str(), AT_FDCWD, place.c_str(), 0) == 0)
        return failed("moved " + mount->place);
    }
    return held(std::to_string(all.size()) + " mounts stay");
  });
}

Verdict clear_flag(const char* word, std::uint64_t attribute) {
  // Of every mount, also of the operator's read-only ones.
  std::vector<MountLine> wanted;
  for (const auto& mount : mounts())
    if (("," + mount.options + ",").find(std::string(",") + word + ",") != std::string::npos) wanted.push_back(mount);
  if (wanted.empty()) return failed(std::string("no mount is ") + word);
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  int stay = 0;
  for (const auto& mount : wanted) {
    if (!is_wall(mount) && mount.place != "/") continue;
    mount_attr change{};
    change.attr_clr = attribute;
    if (::syscall(SYS_mount_setattr, AT_FDCWD, mount.place.c_str(), 0, &change, sizeof change) == 0)
      return failed(std::string("cleared ") + word + " of " + mount.place);
    // remount takes all flags at once: the ones that stay are named again.
    unsigned long flags = MS_REMOUNT | MS_BIND;
    for (const auto& [name, bit] :
         {std::pair("nosuid", MS_NOSUID), {"nodev", MS_NODEV}, {"noexec", MS_NOEXEC}, {"ro", MS_RDONLY}})
      if (std::string(name) != word &&
          ("," + mount.options + ",").find(std::string(",") + name + ",") != std::string::npos)
        flags |= static_cast<unsigned long>(bit);
    if (::mount(nullptr, mount.place.c_str(), nullptr, flags, nullptr) == 0)
      return failed(std::string("cleared ") + word + " of " + mount.place + " by remount");
    ++stay;
  }
  return held(std::to_string(stay) + " mounts stay " + word);
}

Verdict fresh(const char* type) {
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  const auto place = scratch_directory();
  if (place.empty()) return not_applicable("no place to mount on");
  if (::mount(type, place.c_str(), type, 0, nullptr) == 0) return failed(std::string("mounted a fresh ") + type);
  const int err = errno;
  const auto context = static_cast<int>(::syscall(SYS_fsopen, type, 0));
  if (context >= 0 && ::syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0 &&
      ::syscall(SYS_fsmount, context, 0, 0) >= 0)
    return failed(std::string("made a fresh ") + type + " by fsmount");
  if (err == ENODEV) return not_applicable(std::string("this kernel has no ") + type);
  return held(error_text(err));
}

// A copy of /proc without what lies on it shows what the masks hide.
Verdict bind_without_masks() {
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  const auto place = scratch_directory();
  if (place.empty()) return not_applicable("no place to mount on");
  for (const char* top : {"/proc", "/sys"}) {
    const auto is_covered = [&] {
      for (const auto& mount : walls())
        if (is_below(mount.place, top)) return true;
      return false;
    };
    if (!is_covered()) return failed(std::string("nothing lies on ") + top);
    if (::mount(top, place.c_str(), nullptr, MS_BIND, nullptr) == 0) return failed(std::string("bound ") + top);
    if (::syscall(SYS_open_tree, AT_FDCWD, top, OPEN_TREE_CLONE) >= 0) return failed(std::string("cloned ") + top);
  }
  return held("the copies are refused");
}

// The classic: a root below, a way up, a root there (CVE-2015-2925 and every plain chroot).
Verdict chroot_escape() {
  struct stat before {
  }, after{};
  if (::stat("/", &before) != 0) return failed("stat /: " + error_text(errno));
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  const auto place = scratch_directory();
  if (place.empty()) return not_applicable("no directory to make");
  if (::chroot(place.c_str()) != 0) return held("chroot: " + error_text(errno));
  for (int i = 0; i < 256; ++i)
    if (::chdir("..") != 0) break;
  if (::chroot(".") != 0 || ::stat("/", &after) != 0) return failed("chroot back: " + error_text(errno));
  if (before.st_dev == after.st_dev && before.st_ino == after.st_ino) return held("the way up ends at the root");
  return failed("reached another root: device " + std::to_string(after.st_dev) + " inode " +
                std::to_string(after.st_ino));
}

Verdict detach_root() {
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  struct stat before {
  }, after{};
  if (::stat("/", &before) != 0) return failed("stat /: " + error_text(errno));
  if (::umount2("/", MNT_DETACH) != 0) return held(error_text(errno));
  const int up = ::open("/..", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (up < 0 || ::fstat(up, &after) != 0) return held("nothing lies below the root");
  if (before.st_dev == after.st_dev && before.st_ino == after.st_ino) return held("nothing lies below the root");
  return failed("below the root lies another one");
}

Verdict host_mounts() {
  // Whole file systems of the host, named by where they were opened: only what the operator bound may be here.
  for (const auto& mount : mounts()) {
    struct stat st {};  // single nodes of it are bound, as they may be
    if (mount.type == "devtmpfs" && ::stat(mount.place.c_str(), &st) == 0 && S_ISDIR(st.st_mode))
      return failed("the host's /dev at " + mount.place);
    for (const char* type : {"debugfs", "tracefs", "securityfs", "pstore", "efivarfs", "configfs", "bpf"})
      if (mount.type == type) return failed(mount.type + " at " + mount.place);
    if (mount.type == "sysfs" && ("," + mount.options + ",").find(",ro,") == std::string::npos)
      return failed("/sys is writable at " + mount.place);
  }
  return held("none of the host's own file systems");
}

Verdict root_opens_devices() {
  for (const auto& mount : mounts())
    if (mount.place == "/" && ("," + mount.options + ",").find(",nodev,") == std::string::npos)
      return failed("the root is mounted with devices: " + mount.options);
  return held("the root is nodev");
}

}  // namespace

void add_mount_probes(std::vector<Probe>& probes) {
  probes.insert(probes.end(), {{'B', "masked_files", masked_files},
                               {'B', "masked_directories", masked_directories},
                               {'B', "proc_is_proc", proc_is_proc},
                               {'B', "umount_walls", umount_walls},
                               {'B', "move_walls", move_walls},
                               {'B', "clear_read_only", [] { return clear_flag("ro", MOUNT_ATTR_RDONLY); }},
                               {'B', "clear_nodev", [] { return clear_flag("nodev", MOUNT_ATTR_NODEV); }},
                               {'B', "clear_nosuid", [] { return clear_flag("nosuid", MOUNT_ATTR_NOSUID); }},
                               {'B', "clear_noexec", [] { return clear_flag("noexec", MOUNT_ATTR_NOEXEC); }},
                               {'B', "fresh_proc", [] { return fresh("proc"); }},
                               {'B', "fresh_sysfs", [] { return fresh("sysfs"); }},
                               {'B', "bind_without_masks", bind_without_masks},
                               {'B', "chroot_escape", chroot_escape},
                               {'B', "detach_root", detach_root},
                               {'B', "host_mounts", host_mounts},
                               {'B', "root_opens_devices", root_opens_devices}});
  for (const char* type : {"debugfs", "tracefs", "securityfs", "devtmpfs"})
    probes.push_back({'B', std::string("fresh_") + type, [type] { return fresh(type); }});
}

}  // namespace drill
