// Runs inside test containers, statically linked: what a shell cannot ask the kernel.
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace {

volatile sig_atomic_t got = 0;
void on_signal(int signal) { got = signal; }

int keyring() {
  char text[256] = {};
  const long size = ::syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof text - 1);
  const long id = ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
  std::printf("%s %08lx\n", size > 0 ? text : "none", id);
  return 0;
}

// Of a set-user-id program: real and effective user, and whether it may what root may.
int ids() {
  std::printf("ids;%u;%u;%d\n", ::getuid(), ::geteuid(), ::sethostname("ids", 3) == 0);
  return 0;
}

// How many children fit the pids limit.
int fork_all() {
  int made = 0;
  for (; made < 1000; ++made) {
    const pid_t child = ::fork();
    if (child < 0) break;
    if (child == 0) {
      ::pause();
      ::_exit(0);
    }
  }
  std::printf("%d\n", made);
  return 0;
}

// A child that stands still under its tracer, for ever.
int traced() {
  const pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  for (;;) ::pause();
}

int eat(long megabytes) {
  for (long i = 0; i < megabytes; ++i) {
    char* block = static_cast<char*>(std::malloc(1 << 20));
    if (!block) return 3;
    std::memset(block, 1, 1 << 20);
  }
  std::puts("full");
  return 0;
}

// An init that handles one signal: says which one came and exits with its number.
int handle(int signal) {
  std::signal(signal, on_signal);
  std::FILE* ready = std::fopen("/out/ready", "w");
  if (ready) std::fclose(ready);
  while (got == 0) ::pause();
  std::FILE* out = std::fopen("/out/got", "w");
  if (out) {
    std::fprintf(out, "%d", static_cast<int>(got));
    std::fclose(out);
  }
  return got;
}

// Calls that the policy refuses, as fast as they are answered.
int refused(long seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  long count = 0;
  while (std::chrono::steady_clock::now() < end && ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, 0, 0) < 0) ++count;
  std::printf("%ld refused with %d\n", count, errno);
  return 0;
}

// Many descriptors of one file, which many threads have in common.
int open_often(const char* path, int files, int threads) {
  for (int i = 0; i < files; ++i)
    if (::open(path, O_RDONLY) < 0) return 1;
  for (int i = 0; i < threads; ++i) std::thread([] { ::pause(); }).detach();
  std::printf("ready\n");
  std::fflush(stdout);
  return ::pause();
}

// A write that begins, and lasts until somebody ends the pipe.
int write_without_end(const char* path) {
  int ends[2];
  const int file = ::open(path, O_WRONLY | O_CREAT, 0600);
  if (file < 0 || ::pipe(ends) != 0) return 1;
  std::printf("ready\n");
  std::fflush(stdout);
  return ::splice(ends[0], nullptr, file, nullptr, 4096, 0) < 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 2 && std::strcmp(argv[1], "keyring") == 0) return keyring();
  if (argc >= 2 && std::strcmp(argv[1], "ids") == 0) return ids();
  if (argc >= 2 && std::strcmp(argv[1], "fork") == 0) return fork_all();
  if (argc >= 2 && std::strcmp(argv[1], "traced") == 0) return traced();
  if (argc >= 3 && std::strcmp(argv[1], "eat") == 0) return eat(std::atol(argv[2]));
  if (argc >= 3 && std::strcmp(argv[1], "refused") == 0) return refused(std::atol(argv[2]));
  if (argc >= 3 && std::strcmp(argv[1], "handle") == 0) return handle(std::atoi(argv[2]));
  if (argc >= 3 && std::strcmp(argv[1], "write") == 0) return write_without_end(argv[2]);
  if (argc >= 5 && std::strcmp(argv[1], "open") == 0)
    return open_often(argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  return 2;
}
