// For each of the 41 capabilities one thing that it is good for, tried by whoever runs this at something of the host's: "NAME refused
// ERRNO WHAT", "NAME own WHAT" where the thing works and is the container's own, or "NAME reached WHAT". Static: runs in any tree.
//   capabilities PID      PID: a process of the host's; /data/secret: a file of somebody who is not mapped here
// Nothing of it would change the host if it worked, but what is of /data/secret.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/io.h>
#include <sys/ipc.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr const char* kSecret = "/data/secret";
pid_t victim = 0;

struct Attempt {
  const char* name;
  const char* what;
  long (*run)();        // negative: refused, by errno
  bool is_own = false;  // it works, on what is the container's own
};

long opened(const char* path, int flags) { return ::open(path, flags | O_CLOEXEC); }

long audit(int type, unsigned group) {
  const int socket = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
  if (socket < 0) return -1;
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = group;
  if (group != 0) return ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
  struct {
    nlmsghdr header;
    char text[16];
  } message{};
  message.header.nlmsg_len = sizeof message;
  message.header.nlmsg_type = static_cast<__u16>(type);
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  if (::sendto(socket, &message, sizeof message, 0, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
    return -1;
  struct {
    nlmsghdr header;
    nlmsgerr error;
    char rest[256];
  } answer{};
  if (::recv(socket, &answer, sizeof answer, 0) < 0) return -1;
  errno = -answer.error.error;
  return answer.error.error;
}

long listen_below_1024() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(81);
  return socket < 0 ? -1 : ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
}

// Out of a chroot by a directory that was open before: to the root of whoever did it, and no further.
long chroot_and_out() {
  struct stat before {
  }, after{};
  if (::stat("/", &before) != 0 || ::mkdir("/tmp/jail", 0700) != 0) return -1;
  const int outside = ::open("/", O_DIRECTORY | O_CLOEXEC);
  if (::chroot("/tmp/jail") != 0 || ::fchdir(outside) != 0) return -1;
  for (int i = 0; i < 64; ++i)
    if (::chdir("..") != 0) return -1;
  if (::stat(".", &after) != 0) return -1;
  errno = EXDEV;
  return before.st_ino == after.st_ino && before.st_dev == after.st_dev ? 0 : -2;
}

long lock_more_than_allowed() {
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0) return -1;
  void* page = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return ::mlock(page, 4096);
}

long raise_a_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_max = limit.rlim_max == RLIM_INFINITY ? RLIM_INFINITY : limit.rlim_max + 1;
  return ::setrlimit(RLIMIT_NOFILE, &limit);
}

long real_time() {
  sched_param parameter{};
  parameter.sched_priority = 1;
  return ::sched_setscheduler(0, SCHED_FIFO, &parameter);
}

long set_immutable() {
  const int file = ::open("/tmp/own", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  int flags = FS_IMMUTABLE_FL;
  return file < 0 ? -1 : ::ioctl(file, FS_IOC_SETFLAGS, &flags);
}

long set_same_time() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return ::clock_settime(CLOCK_REALTIME, &now);
}

long give_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, victim};
  __user_cap_data_struct data[2]{};
  return ::syscall(SYS_capset, &header, data);
}

long watch_all_processors() {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_SOFTWARE;
  return ::syscall(SYS_perf_event_open, &attributes, -1, 0, -1, 0);
}

long load_a_program() {
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_KPROBE;
  return ::syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
}

long set_file_capability() {
  const vfs_cap_data data{VFS_CAP_REVISION_2, {}};
  return ::setxattr(kSecret, "security.capability", &data, XATTR_CAPS_SZ_2, 0);
}

// In the order of linux/capability.h.
const Attempt kAttempts[] = {
    {"chown", "give away a file of the host's", [] { return long{::chown(kSecret, 0, 0)}; }},
    {"dac_override", "write a file of the host's", [] { return opened(kSecret, O_WRONLY); }},
    {"dac_read_search", "read a file of the host's", [] { return opened(kSecret, O_RDONLY); }},
    {"fowner", "change the mode of a file of the host's", [] { return long{::chmod(kSecret, 0600)}; }},
    {"fsetid", "set the set-user-id bit of a file of the host's", [] { return long{::chmod(kSecret, 04600)}; }},
    {"kill", "signal a process of the host's", [] { return long{::kill(victim, SIGKILL)}; }},
    {"setgid", "take a group that is not the domain's", [] { return long{::setgid(70'000)}; }},
    {"setuid", "become a user that is not the domain's", [] { return long{::setuid(70'000)}; }},
    {"setpcap", "change what a process of the host's may do", give_capabilities},
    {"linux_immutable", "make a file immutable", set_immutable},
    {"net_bind_service", "listen on port 81", listen_below_1024, true},
    {"net_broadcast", "the kernel asks for it nowhere", [] { return 0L; }, true},
    {"net_admin", "change a setting of the host's network",
     [] { return opened("/proc/sys/net/core/netdev_max_backlog", O_WRONLY); }},
    {"net_raw", "send any packet", [] { return long{::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP)}; },
     true},
    {"ipc_lock", "lock more memory than the limit", lock_more_than_allowed},
    {"ipc_owner", "find shared memory of the host's", [] { return long{::shmget(0x484f5354, 1, 0)}; }},
    {"sys_module", "load a module", [] { return ::syscall(SYS_init_module, "", 0, ""); }},
    {"sys_rawio", "reach the ports of devices", [] { return long{::iopl(3)}; }},
    {"sys_chroot", "leave a chroot for the container's root", chroot_and_out, true},
    {"sys_ptrace", "trace a process of the host's", [] { return ::ptrace(PTRACE_SEIZE, victim, nullptr, nullptr); }},
    {"sys_pacct", "have all processes accounted", [] { return ::syscall(SYS_acct, "/tmp/acct"); }},
    {"sys_admin", "mount what the kernel tells of itself",
     [] { return long{::mount("x", "/tmp", "debugfs", 0, nullptr)}; }},
    {"sys_boot", "load another kernel", [] { return ::syscall(SYS_kexec_load, 0, 0, nullptr, 0); }},
    {"sys_nice", "run before everybody else", real_time},
    {"sys_resource", "raise a limit", raise_a_limit},
    {"sys_time", "set the clock", set_same_time},
    {"sys_tty_config", "hang up a terminal", [] { return long{::vhangup()}; }},
    {"mknod", "make a device node", [] { return long{::mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1))}; }},
    {"lease", "take a lease on a file of the host's",
     [] {
       const int file = ::open("/data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
       return file < 0 ? -1L : long{::fcntl(file, F_SETLEASE, F_RDLCK)};
     }},
    {"audit_write", "write to the audit log", [] { return audit(AUDIT_USER, 0); }},
    {"audit_control", "switch auditing off", [] { return audit(AUDIT_SET, 0); }},
    {"setfcap", "give a file of the host's a capability", set_file_capability},
    {"mac_override", "load a policy", [] { return opened("/sys/fs/smackfs/load2", O_WRONLY); }},
    {"mac_admin", "label a file of the host's",
     [] { return long{::setxattr(kSecret, "security.SMACK64", "_", 1, 0)}; }},
    {"syslog", "read the kernel's log", [] { return long{::klogctl(3, nullptr, 0)}; }},
    {"wake_alarm", "wake the machine", [] { return long{::timerfd_create(CLOCK_REALTIME_ALARM, TFD_CLOEXEC)}; }},
    {"block_suspend", "keep the machine awake", [] { return opened("/sys/power/wake_lock", O_WRONLY); }},
    {"audit_read", "read the audit log", [] { return audit(0, 1); }},
    {"perfmon", "watch all processors", watch_all_processors},
    {"bpf", "load a program into the kernel", load_a_program},
    {"checkpoint_restore", "read the memory map of a process of the host's",
     [] {
       char path[64];
       std::snprintf(path, sizeof path, "/proc/%d/map_files", victim);
       return opened(path, O_RDONLY | O_DIRECTORY);
     }},
};
static_assert(sizeof kAttempts / sizeof kAttempts[0] == CAP_LAST_CAP + 1);

}  // namespace

int main(int argc, char** argv) {
  victim = argc > 1 ? std::atoi(argv[1]) : 0;
  if (victim <= 0) return 2;
  for (const auto& attempt : kAttempts) {
    std::fflush(stdout);
    // What one does, to itself for instance, must not help the next.
    const pid_t child = ::fork();
    if (child < 0) return 1;
    if (child == 0) {
      errno = 0;
      const long done = attempt.run();
      const char* verdict = done >= 0 ? (attempt.is_own ? "own" : "reached") : "refused";
      std::printf("%s %s %s%s%s\n", attempt.name, verdict, done < 0 ? strerrorname_np(errno) : "",
                  done < 0 ? " " : "", attempt.what);
      std::fflush(stdout);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
      std::printf("%s refused SIG%s %s\n", attempt.name, sigabbrev_np(WTERMSIG(status)), attempt.what);
  }
  return 0;
}
