#include "driver/compute/image_program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

constexpr std::size_t kMaxOutput = 1024 * 1024;
constexpr int kLockNumber = 3;
constexpr int kExitTooLarge = 3, kExitNoRoom = 4;  // virt-userns-image(1)
using Clock = std::chrono::steady_clock;

struct Pipe {
  Fd read, write;
  static Result<Pipe> make() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_fail("make pipe");
    return Pipe{Fd(ends[0]), Fd(ends[1])};
  }
};

class SpawnSetup {
 public:
  SpawnSetup() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  // Signals as a program expects them: a thread of ours may have blocked or ignored some.
  void reset_signals() {
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

Result<pid_t> spawn(std::vector<std::string>& argv, const Fd& out, const Fd& errors, const Fd* lock) {
  SpawnSetup setup;
  setup.reset_signals();
  ::posix_spawn_file_actions_addopen(&setup.actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&setup.actions, out.get(), 1);
  ::posix_spawn_file_actions_adddup2(&setup.actions, errors.get(), 2);
  if (lock) ::posix_spawn_file_actions_adddup2(&setup.actions, lock->get(), kLockNumber);
  ::posix_spawn_file_actions_addclosefrom_np(&setup.actions, lock ? kLockNumber + 1 : kLockNumber);
  std::vector<char*> words;
  for (auto& word : argv) words.push_back(word.data());
  words.push_back(nullptr);
  char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", locale[] = "LC_ALL=C.UTF-8";
  char* environment[] = {path, locale, nullptr};
  pid_t pid = 0;
  const int why =
      ::posix_spawn(&pid, argv.front().c_str(), &setup.actions, &setup.attributes, words.data(), environment);
  if (why != 0) return sys_fail("run " + quote(argv.front()), why);
  return pid;
}

// False: the time is over, or it says too much.
bool collect(std::array<Pipe*, 2> pipes, std::array<std::string, 2>& said, Clock::time_point deadline) {
  while (pipes[0]->read || pipes[1]->read) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd polled[] = {{pipes[0]->read.get(), POLLIN, 0}, {pipes[1]->read.get(), POLLIN, 0}};
    if (::poll(polled, 2, static_cast<int>(std::min<long long>(left, 60'000))) < 0 && errno != EINTR) return false;
    for (std::size_t i = 0; i < 2; ++i) {
      if (polled[i].revents == 0) continue;
      char buffer[8192];
      const auto got = ::read(pipes[i]->read.get(), buffer, sizeof buffer);
      if (got <= 0)
        pipes[i]->read.reset();
      else if (said[i].append(buffer, static_cast<std::size_t>(got)).size() > kMaxOutput)
        return false;
    }
  }
  return true;
}

// Its last line, which is the error; without what every one begins with.
std::string why_not(const std::string& errors, int status) {
  if (WIFSIGNALED(status)) return "was ended by signal " + std::to_string(WTERMSIG(status));
  const auto lines = split(trim(errors), '\n');
  auto line = lines.back();
  constexpr std::string_view kMark = "error: ";
  if (const auto at = line.find(kMark); at != std::string_view::npos) line.remove_prefix(at + kMark.size());
  return line.empty() ? "ended with " + std::to_string(WEXITSTATUS(status)) : printable(line, 2048);
}

int reap(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

Result<std::string> run_image_program(std::vector<std::string> argv, const Fd* lock, std::chrono::seconds timeout) {
  auto out = TRY(Pipe::make()), errors = TRY(Pipe::make());
  // A copy whose number is none of those that are placed.
  Fd high_lock(lock ? ::fcntl(lock->get(), F_DUPFD_CLOEXEC, 16) : -1);
  if (lock && !high_lock) return sys_fail("keep the lock");
  const auto pid = TRY(spawn(argv, out.write, errors.write, lock ? &high_lock : nullptr));
  out.write.reset();
  errors.write.reset();
  std::array<std::string, 2> said;
  const bool is_whole = collect({&out, &errors}, said, Clock::now() + timeout);
  if (!is_whole) ::kill(pid, SIGKILL);
  const int status = reap(pid);
  if (!is_whole)
    return fail(VIR_ERR_OPERATION_TIMEOUT, argv.front() + " did not end within " + std::to_string(timeout.count()) +
                                               " seconds, or said too much, and was killed");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::move(said[0]);
  auto error = fail(VIR_ERR_OPERATION_FAILED, why_not(said[1], status));
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  if (code == kExitTooLarge) error.code = kImageTooLarge;
  if (code == kExitNoRoom) error.sys_errno = ENOSPC;
  return error;
}

}  // namespace virtuserns::compute
