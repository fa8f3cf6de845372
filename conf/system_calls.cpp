#include "conf/system_calls.h"

#include <algorithm>

#include "conf/base/text.h"

namespace virtuserns {

namespace {

using enum CallRule;

// One name stands once. Old and 32-bit forms of a call stand beside it.
constexpr CallGroup kGroups[] = {
    // ---- allowed --------------------------------------------------------------------------------------------------
    {"descriptors", kAllowed, "reading, writing and waiting",
     "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek close close_range dup dup2 "
     "dup3 fcntl fcntl64 flock ioctl pipe pipe2 poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 "
     "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 "
     "sendfile sendfile64 splice tee vmsplice copy_file_range fsync fdatasync sync syncfs sync_file_range "
     "sync_file_range2 arm_sync_file_range fallocate ftruncate ftruncate64 truncate truncate64 readahead fadvise64 "
     "fadvise64_64 arm_fadvise64_64 cachestat memfd_create memfd_secret"},
    {"files", kAllowed, "names, owners, modes, attributes, times",
     "open openat openat2 creat access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 newfstatat "
     "fstatat64 statx oldstat oldlstat oldfstat statfs statfs64 fstatfs fstatfs64 getdents getdents64 readdir getcwd "
     "chdir fchdir mkdir mkdirat rmdir link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename "
     "renameat renameat2 chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 lchown lchown32 fchownat umask "
     "mknod mknodat utime utimes utimensat utimensat_time64 futimesat getxattr lgetxattr fgetxattr setxattr lsetxattr "
     "fsetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr setxattrat getxattrat "
     "listxattrat removexattrat file_getattr file_setattr name_to_handle_at"},
    {"watching files", kAllowed, "inotify and fanotify, counted to the domain's own ids",
     "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_init fanotify_mark"},
    {"mounts", kAllowed, "systemd and package managers mount; the kernel keeps what is locked locked",
     "mount umount umount2 chroot pivot_root open_tree open_tree_attr move_mount mount_setattr fsopen fsconfig fsmount "
     "fspick statmount listmount"},
    {"memory", kAllowed, "the address space of a process, and where its pages lie",
     "brk mmap mmap2 munmap mprotect mremap madvise process_madvise process_mrelease msync mincore mlock mlock2 "
     "mlockall munlock munlockall remap_file_pages mseal pkey_alloc pkey_free pkey_mprotect map_shadow_stack "
     "membarrier mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages cacheflush"},
    {"processes", kAllowed, "making, running, waiting and ending; clone and unshare are looked into",
     "clone fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid getpgrp "
     "setpgid getsid setsid set_tid_address set_robust_list get_robust_list rseq prctl arch_prctl set_thread_area "
     "get_thread_area set_tls get_tls personality ptrace process_vm_readv process_vm_writev kcmp pidfd_open "
     "pidfd_send_signal pidfd_getfd unshare setns restart_syscall uretprobe uprobe"},
    {"futexes", kAllowed, "locks of threads", "futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue"},
    {"signals", kAllowed, "sending, handling, waiting",
     "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend "
     "rt_sigtimedwait rt_sigtimedwait_time64 rt_sigreturn sigaltstack pause signal sigaction sigprocmask sigpending "
     "sigsuspend sigreturn sgetmask ssetmask"},
    {"ids and capabilities", kAllowed, "of the domain's own user namespace",
     "getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 setuid setuid32 setgid setgid32 setreuid "
     "setreuid32 setregid setregid32 getresuid getresuid32 setresuid setresuid32 getresgid getresgid32 setresgid "
     "setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 getgroups getgroups32 setgroups setgroups32 capget capset"},
    {"sandboxing", kAllowed, "programs that give up more",
     "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr lsm_set_self_attr "
     "lsm_list_modules"},
    {"scheduling and limits", kAllowed, "within the domain's own control groups",
     "sched_yield sched_setaffinity sched_getaffinity sched_setattr sched_getattr sched_setparam sched_getparam "
     "sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval "
     "sched_rr_get_interval_time64 nice getpriority setpriority ioprio_get ioprio_set getcpu getrlimit ugetrlimit "
     "setrlimit prlimit64 getrusage times"},
    {"clocks and timers", kAllowed, "reading clocks and waiting; setting them is the host's",
     "time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep "
     "clock_nanosleep_time64 nanosleep alarm getitimer setitimer timer_create timer_delete timer_getoverrun "
     "timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 "
     "timerfd_settime timerfd_settime64"},
    {"sockets", kAllowed, "the families are looked into",
     "socket socketpair socketcall bind listen accept accept4 connect shutdown getsockname getpeername getsockopt "
     "setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64"},
    {"System V and POSIX ipc", kAllowed, "of the domain's own ipc namespace",
     "ipc shmget shmat shmdt shmctl semget semop semtimedop semtimedop_time64 semctl msgget msgsnd msgrcv msgctl mq_open "
     "mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify mq_getsetattr"},
    {"asynchronous i/o", kAllowed, "the older interface, which databases use",
     "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64"},
    {"the machine as the domain sees it", kAllowed, "names and sizes; reboot is that of the pid namespace",
     "uname olduname oldolduname sysinfo sethostname setdomainname reboot vhangup getrandom"},
    // ---- refused, may be allowed ------------------------------------------------------------------------------------
    {"keyrings", kRefused, "counted to ids, but not in namespaces", "keyctl add_key"},
    {"measuring", kRefused, "many bugs of the kernel, and figures of the whole machine", "perf_event_open"},
    {"page faults", kRefused, "stops the kernel where an attacker of the kernel wants it stopped", "userfaultfd"},
    {"setting clocks", kRefused, "the clocks are the host's",
     "settimeofday stime clock_settime clock_settime64 adjtimex clock_adjtime clock_adjtime64"},
    {"quota", kRefused, "of the host's file systems", "quotactl quotactl_fd"},
    {"processor modes", kRefused, "16-bit code: emulators and Wine, and bugs of the kernel",
     "modify_ldt vm86 vm86old"},
    {"old file calls", kRefused, "no program of today", "uselib sysfs ustat"},
    // ---- never --------------------------------------------------------------------------------------------------------
    {"kernels and modules", kNever, "another kernel, more kernel",
     "kexec_load kexec_file_load init_module finit_module delete_module"},
    {"bpf", kNever, "programs in the kernel of all domains", "bpf"},
    {"handles of files", kNever, "opens files of the file system that no mount of the domain shows",
     "open_by_handle_at"},
    {"upcalls", kNever, "runs a program of the host on the domain's words", "request_key"},
    {"the host's log", kNever, "has no namespace", "syslog"},
    {"swap and accounting", kNever, "of the whole machine", "swapon swapoff acct"},
    {"ports", kNever, "the hardware", "iopl ioperm pciconfig_iobase pciconfig_read pciconfig_write"},
    // ---- not there ----------------------------------------------------------------------------------------------------
    {"clone3", kAbsent, "its flags cannot be looked into; C libraries fall back to clone", "clone3"},
    {"io_uring", kAbsent, "does the work of refused calls unseen, and many bugs of the kernel; programs fall back",
     "io_uring_setup io_uring_enter io_uring_register"},
    {"gone from Linux", kGone, "the kernel would say the same",
     "_sysctl afs_syscall bdflush break breakpoint create_module epoll_ctl_old epoll_wait_old ftime get_kernel_syms "
     "getpmsg gtty idle lock lookup_dcookie mpx nfsservctl prof profil putpmsg query_module security stty tuxcall ulimit "
     "usr26 usr32 vserver"},
};

// Between the filter and the first instruction of init, and what any program needs to say why it ends.
constexpr std::string_view kNeededByEveryStart =
    "execve exit exit_group sendmsg capset capget prctl brk mmap munmap mprotect close write rt_sigreturn "
    "restart_syscall";

constexpr NumberedCall kNumbered[] = {{"uretprobe", 335, true},   {"uprobe", 336, true},
                                      {"futex_waitv", 449},       {"set_mempolicy_home_node", 450},
                                      {"cachestat", 451},         {"fchmodat2", 452},
                                      {"map_shadow_stack", 453},  {"futex_wake", 454},
                                      {"futex_wait", 455},        {"futex_requeue", 456},
                                      {"statmount", 457},         {"listmount", 458},
                                      {"lsm_get_self_attr", 459}, {"lsm_set_self_attr", 460},
                                      {"lsm_list_modules", 461},  {"mseal", 462},
                                      {"setxattrat", 463},        {"getxattrat", 464},
                                      {"listxattrat", 465},       {"removexattrat", 466},
                                      {"open_tree_attr", 467},    {"file_getattr", 468},
                                      {"file_setattr", 469}};

bool has_word(std::string_view words, std::string_view word) {
  const auto list = split_blanks(words);
  return std::find(list.begin(), list.end(), word) != list.end();
}

Error refuse(std::string text) { return fail(VIR_ERR_XML_ERROR, std::move(text)); }

}  // namespace

std::span<const CallGroup> call_groups() { return kGroups; }
std::span<const NumberedCall> numbered_calls() { return kNumbered; }

std::vector<std::string_view> calls_of(const CallGroup& group) { return split_blanks(group.calls); }

const CallGroup* find_call_group(std::string_view call) {
  for (const auto& group : kGroups)
    if (!call.empty() && has_word(group.calls, call)) return &group;
  return nullptr;
}

Result<void> check_allowed_call(std::string_view call, bool has_nesting) {
  const auto* group = find_call_group(call);
  if (!group)
    return refuse("unknown system call " + quote(call) + ": use a name of syscalls(2), such as 'perf_event_open'");
  if (group->rule == kNever)
    return refuse("system call " + quote(call) + " can never be allowed (" + std::string(group->reason) +
                  "): remove it");
  if (group->rule == kGone) return refuse("system call " + quote(call) + " is no longer in Linux: remove it");
  if (call == "clone3" && !has_nesting)
    return refuse(
        "system call 'clone3' would allow user namespaces, since its flags cannot be looked into: add nesting='yes' to "
        "<userns:seccomp>, or remove it");
  return {};
}

Result<void> check_denied_call(std::string_view call) {
  if (!find_call_group(call))
    return refuse("unknown system call " + quote(call) + ": use a name of syscalls(2), such as 'ptrace'");
  if (has_word(kNeededByEveryStart, call))
    return refuse("system call " + quote(call) + " cannot be denied: no init starts without it; remove it");
  return {};
}

}  // namespace virtuserns
