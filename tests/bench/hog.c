// The init of a container that takes whatever it gets, all at once: processes, memory, descriptors, inotify instances and
// watches, disk. Each is a child that is started again when the kernel ends it. What each came to is counted in /hogs, a
// file that whoever measures reads from outside: seven numbers of 64 bits, in the order of the enumeration.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS_REFUSED, KILLED, DESCRIPTORS, INSTANCES, WATCHES, DISK_FULL, PEAK_MEGABYTES, COUNTERS };
static volatile uint64_t* counters;

static void at_least(int which, uint64_t value) {
  if (counters[which] < value) counters[which] = value;
}

// Doubles until the kernel says no, and goes on asking. Each one works, so that all want the processor.
static void fork_hog(void) {
  sleep(1);
  for (;;) {
    const pid_t child = fork();
    if (child < 0) __sync_fetch_and_add(&counters[FORKS_REFUSED], 1);
    for (volatile int i = 0; i < 20000; ++i) {
    }
  }
}

static void memory_hog(void) {
  const size_t step = 1 << 20;
  for (uint64_t taken = 0;; ++taken) {
    char* block = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) {
      sched_yield();
      continue;
    }
    memset(block, 1, step);
    at_least(PEAK_MEGABYTES, taken + 1);
  }
}

static void descriptor_hog(void) {
  struct rlimit limit = {0, 0};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  for (uint64_t taken = 0;;) {
    if (open("/", O_PATH | O_DIRECTORY) >= 0)
      at_least(DESCRIPTORS, ++taken);
    else
      usleep(1000);
  }
}

static void inotify_hog(void) {
  uint64_t instances = 0, watches = 0;
  int last = -1;
  for (int fd; (fd = inotify_init1(IN_CLOEXEC)) >= 0; last = fd) at_least(INSTANCES, ++instances);
  for (uint64_t number = 0;; ++number) {
    char name[32] = "/watched/";
    int at = 9;
    for (uint64_t rest = number; rest || at == 9; rest /= 26) name[at++] = (char)('a' + rest % 26);
    mkdir("/watched", 0700);
    mkdir(name, 0700);
    if (inotify_add_watch(last, name, IN_ALL_EVENTS) >= 0)
      at_least(WATCHES, ++watches);
    else
      usleep(1000);
    rmdir(name);
  }
}

static void disk_hog(void) {
  static char block[1 << 16];
  memset(block, 1, sizeof block);
  for (;;) {
    const int fd = open("/disk", O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0) {
      usleep(1000);
      continue;
    }
    while (write(fd, block, sizeof block) > 0) {
    }
    if (errno == ENOSPC) __sync_fetch_and_add(&counters[DISK_FULL], 1);
    fsync(fd);
    close(fd);
  }
}

// The fork bomb last: the others are to have met their limits before it leaves them little of the processor.
static void (*const hogs[])(void) = {disk_hog, inotify_hog, descriptor_hog, memory_hog, fork_hog};
enum { HOGS = sizeof hogs / sizeof hogs[0] };

int main(void) {
  const int fd = open("/hogs", O_RDWR);
  counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || counters == MAP_FAILED) return 1;
  close(fd);
  pid_t pids[HOGS] = {0};
  for (;;) {
    for (int i = 0; i < HOGS; ++i) {
      if (pids[i] > 0) continue;
      pids[i] = fork();
      if (pids[i] != 0) continue;
      // When the memory is used up it is for these to go: without its init the container would end.
      const int score = open("/proc/self/oom_score_adj", O_WRONLY);
      if (score < 0 || write(score, "1000", 4) != 4) _exit(1);
      close(score);
      hogs[i]();
    }
    int status = 0;
    const pid_t ended = waitpid(-1, &status, 0);
    // Also of the fork bomb's children. Nobody but the kernel kills here: the group has no memory left.
    if (ended > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) __sync_fetch_and_add(&counters[KILLED], 1);
    for (int i = 0; i < HOGS; ++i)
      if (ended > 0 && pids[i] == ended) pids[i] = 0;
  }
}
