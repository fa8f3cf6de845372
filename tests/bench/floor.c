/* floor: what the kernel alone takes to start and end a container. One clone3 with the namespaces of a domain, its id
 * maps, its mounts, pivot_root, and exec of the given program; then SIGKILL, wait. Nothing is checked that need not be,
 * nothing is protected from a hostile tree: it is a lower bound, not an example.
 *
 * floor --root DIR --uid FIRST --iterations N [--idmapped] [--cgroups PARENT] [--mounts FILE] -- PROGRAM [ARGUMENT...]
 *   FILE has what else is mounted, one of a line, below the new root: "null PLACE" (the device, over a file), "empty
 *   PLACE" (nothing, over a directory), "self PLACE rw|ro", "TYPE PLACE OPTIONS" for a file system. It prints one line for each round: microseconds from before clone3 to the exec, and of the end.
 *
 * The exec is seen as the end of file of a close-on-exec pipe.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *root;
static const char *cgroup_parent;
static unsigned first_id;
static int is_idmapped;
static char **program;

/* What a domain has mounted beside what the floor has of its own. */
static struct { char type[16], place[256], options[64]; } extra[128];
static size_t extra_count;

static void die(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  _exit(1);
}

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void write_file(const char *path, const char *text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
  close(fd);
}

/* ---- cgroups: v1 hierarchies are joined by the child ("0" into tasks that root opened), v2 by CLONE_INTO_CGROUP --- */

static const char *const kHierarchies[] = {"cpu",     "cpuacct", "cpuset", "memory",
                                           "devices", "freezer", "blkio",  "pids"};
enum { kHierarchyCount = sizeof kHierarchies / sizeof *kHierarchies };
static int tasks[kHierarchyCount];
static int unified = -1;

static void cgroup_path(char *to, size_t size, const char *hierarchy, const char *rest) {
  snprintf(to, size, "/sys/fs/cgroup/%s%s%s/floor%s", hierarchy, *hierarchy ? "/" : "", cgroup_parent, rest);
}

static const char *unified_name(void) { return access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "" : "unified"; }

static void make_cgroups(void) {
  char path[256];
  for (int i = 0; i < kHierarchyCount; ++i) {
    tasks[i] = -1;
    cgroup_path(path, sizeof path, kHierarchies[i], "");
    if (mkdir(path, 0755) != 0 && errno != EEXIST) continue; /* not mounted here */
    if (strcmp(kHierarchies[i], "cpuset") == 0) {
      cgroup_path(path, sizeof path, "cpuset", "/cpuset.cpus");
      write_file(path, "0");
      cgroup_path(path, sizeof path, "cpuset", "/cpuset.mems");
      write_file(path, "0");
    }
    cgroup_path(path, sizeof path, kHierarchies[i], "/tasks");
    tasks[i] = open(path, O_WRONLY | O_CLOEXEC);
  }
  cgroup_path(path, sizeof path, unified_name(), "");
  unified = -1;
  if (mkdir(path, 0755) == 0 || errno == EEXIST) unified = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void remove_cgroups(void) {
  char path[256];
  for (int i = 0; i < kHierarchyCount; ++i) {
    if (tasks[i] < 0) continue;
    close(tasks[i]);
    cgroup_path(path, sizeof path, kHierarchies[i], "");
    if (rmdir(path) != 0) die(path);
  }
  if (unified < 0) return;
  close(unified);
  cgroup_path(path, sizeof path, unified_name(), "");
  if (rmdir(path) != 0) die(path);
}

/* ---- the child ---------------------------------------------------------------------------------------------------- */

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags,
                     const char *data) {
  if (mount(source, target, type, flags, data) != 0) die(target);
}

static void read_extra(const char *file) {
  FILE *const in = fopen(file, "re");
  if (in == NULL) die(file);
  while (extra_count < sizeof extra / sizeof *extra &&
         fscanf(in, "%15s %255s %63s", extra[extra_count].type, extra[extra_count].place,
                extra[extra_count].options) == 3)
    ++extra_count;
  if (!feof(in)) die("more mounts than there is room for");
  fclose(in);
}

/* In the root, as the last of the mounts. One call makes a mount and one makes it read-only, as anybody must. */
static void mount_extra(void) {
  for (size_t i = 0; i < extra_count; ++i) {
    const char *type = extra[i].type, *place = extra[i].place, *options = extra[i].options;
    if (strcmp(type, "null") == 0) {
      mount_at("dev/null", place, NULL, MS_BIND, NULL);
    } else if (strcmp(type, "empty") == 0) {
      mount_at("dev/shm", place, NULL, MS_BIND, NULL);
      mount_at(NULL, place, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL);
    } else if (strcmp(type, "self") == 0) {
      mount_at(place, place, NULL, MS_BIND, NULL);
      if (strcmp(options, "ro") == 0)
        mount_at(NULL, place, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    } else {
      if (mkdir(place, 0755) != 0 && errno != EEXIST) die(place);
      mount_at(type, place, type, MS_NOSUID | MS_NODEV | MS_NOEXEC, strcmp(options, "-") == 0 ? NULL : options);
    }
  }
}

static int receive_fd(int from) {
  char byte, control[CMSG_SPACE(sizeof(int))];
  struct iovec iov = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1) _exit(1);
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header == NULL) return -1;
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

static void child(int gate) {
  static const char *const kDevices[] = {"null", "zero", "full", "random", "urandom", "tty"};
  if (cgroup_parent != NULL) {
    for (int i = 0; i < kHierarchyCount; ++i)
      if (tasks[i] >= 0 && write(tasks[i], "0", 1) != 1) die("tasks");
    if (unshare(CLONE_NEWCGROUP) != 0) die("unshare");
  }
  const int tree = receive_fd(gate);
  if (setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0) die("setresuid");

  mount_at(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
  if (tree >= 0) {
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, root, MOVE_MOUNT_F_EMPTY_PATH) != 0) die("move_mount");
  } else {
    mount_at(root, root, NULL, MS_BIND | MS_REC, NULL);
  }
  if (chdir(root) != 0) die(root);
  mount_at("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
  mount_at("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL);
  mount_at("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, NULL);
  mount_at("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k");
  if (mkdir("dev/pts", 0755) != 0 || mkdir("dev/shm", 01777) != 0 || mkdir("dev/mqueue", 0755) != 0) die("mkdir");
  mount_at("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666");
  mount_at("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, NULL);
  mount_at("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
  for (size_t i = 0; i < sizeof kDevices / sizeof *kDevices; ++i) {
    char host[64], target[64];
    snprintf(host, sizeof host, "/dev/%s", kDevices[i]);
    snprintf(target, sizeof target, "dev/%s", kDevices[i]);
    const int fd = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) die(target);
    close(fd);
    mount_at(host, target, NULL, MS_BIND, NULL);
  }
  mount_extra();
  if (syscall(SYS_pivot_root, ".", ".") != 0) die("pivot_root");
  if (umount2(".", MNT_DETACH) != 0) die("umount2");
  if (sethostname("floor", 5) != 0) die("sethostname");
  execv(program[0], program);
  die(program[0]);
}

/* ---- the parent --------------------------------------------------------------------------------------------------- */

static void open_gate(int gate, pid_t pid) {
  char byte = 0, control[CMSG_SPACE(sizeof(int))];
  struct iovec iov = {&byte, 1};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  int tree = -1;
  if (is_idmapped) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP};
    const int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0) die(path);
    attr.userns_fd = (uint64_t)ns;
    tree = (int)syscall(SYS_open_tree, AT_FDCWD, root, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr) != 0)
      die("mount_setattr");
    close(ns);
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof tree);
    memcpy(CMSG_DATA(header), &tree, sizeof tree);
  }
  if (sendmsg(gate, &message, 0) != 1) die("sendmsg");
  if (tree >= 0) close(tree);
}

static void one_round(void) {
  const double begin = now_us();
  int gate[2], outcome[2], pidfd = -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, gate) != 0 || pipe2(outcome, O_CLOEXEC) != 0) die("pipe");
  struct clone_args args = {
      .flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_PIDFD,
      .pidfd = (uint64_t)(uintptr_t)&pidfd,
      .exit_signal = SIGCHLD};
  if (cgroup_parent != NULL) {
    make_cgroups();
    if (unified >= 0) {
      args.flags |= CLONE_INTO_CGROUP;
      args.cgroup = (uint64_t)unified;
    }
  } else {
    args.flags |= CLONE_NEWCGROUP;
  }
  const pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) die("clone3");
  if (pid == 0) child(gate[1]);
  close(gate[1]);
  close(outcome[1]);

  char path[64], map[64];
  snprintf(map, sizeof map, "0 %u 65536\n", first_id);
  snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
  write_file(path, map);
  snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
  write_file(path, map);
  open_gate(gate[0], pid);
  char byte;
  if (read(outcome[0], &byte, 1) != 0) die("outcome");
  const double started = now_us();
  close(gate[0]);
  close(outcome[0]);
  /* A child that failed has said so on stderr and closed the pipe as well. */
  siginfo_t gone = {0};
  if (waitid(P_PID, (id_t)pid, &gone, WEXITED | WNOHANG | WNOWAIT) == 0 && gone.si_pid == pid) {
    fprintf(stderr, "floor: the child ended before its exec\n");
    exit(1);
  }

  const double ending = now_us();
  if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) != 0) die("kill");
  if (waitid(P_PID, (id_t)pid, &gone, WEXITED) != 0) die("waitid");
  close(pidfd);
  if (cgroup_parent != NULL) remove_cgroups();
  const double ended = now_us();
  printf("%.1f %.1f\n", started - begin, ended - ending);
}

int main(int argc, char **argv) {
  int rounds = 1;
  int i = 1;
  for (; i < argc && strcmp(argv[i], "--") != 0; ++i) {
    if (strcmp(argv[i], "--idmapped") == 0) {
      is_idmapped = 1;
    } else if (i + 1 < argc && strcmp(argv[i], "--root") == 0) {
      root = argv[++i];
    } else if (i + 1 < argc && strcmp(argv[i], "--cgroups") == 0) {
      cgroup_parent = argv[++i];
    } else if (i + 1 < argc && strcmp(argv[i], "--mounts") == 0) {
      read_extra(argv[++i]);
    } else if (i + 1 < argc && strcmp(argv[i], "--uid") == 0) {
      first_id = (unsigned)strtoul(argv[++i], NULL, 10);
    } else if (i + 1 < argc && strcmp(argv[i], "--iterations") == 0) {
      rounds = atoi(argv[++i]);
    } else {
      fprintf(stderr, "floor: '%s' is not an option\n", argv[i]);
      return 2;
    }
  }
  program = argv + i + 1;
  if (root == NULL || first_id == 0 || i + 1 >= argc) {
    fprintf(stderr, "floor: --root, --uid and a program are needed\n");
    return 2;
  }
  for (int round = 0; round < rounds; ++round) one_round();
  return 0;
}
