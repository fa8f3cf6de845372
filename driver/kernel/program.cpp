#include "driver/kernel/program.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::kernel {
namespace {

constexpr int kCannotExec = 127;
constexpr const char* kFolders[] = {"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"};

Result<std::string> find_program(const std::string& name) {
  if (name.starts_with('/')) return name;
  for (const auto* folder : kFolders)
    if (const auto path = folder + name; ::access(path.c_str(), X_OK) == 0) return path;
  return fail(VIR_ERR_NO_SUPPORT, "'" + name + "' is not installed");
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> all;
  for (auto& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

// In the child. Nothing of ours but what it is given; what it opens by a name of the network finds no network.
[[noreturn]] void exec_program(const std::string& path, std::vector<std::string> argv, int out, int errors,
                               pid_t parent, Network network) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(kCannotExec);
  const int isolated = CLONE_NEWNS | CLONE_NEWIPC | (network == Network::kNone ? CLONE_NEWNET : 0);
  if (::unshare(isolated) != 0) ::_exit(kCannotExec);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  // What is copied may sit where another copy goes.
  const int high_out = ::fcntl(out, F_DUPFD_CLOEXEC, 10);
  const int high_errors = ::fcntl(errors, F_DUPFD_CLOEXEC, 10);
  if (::dup2(null, 0) < 0 || ::dup2(high_out, 1) < 0 || ::dup2(high_errors, 2) < 0) ::_exit(kCannotExec);
  ::close_range(3, ~0u, 0);
  std::vector<std::string> environment{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"};
  ::execve(path.c_str(), pointers(argv).data(), pointers(environment).data());
  ::_exit(kCannotExec);
}

Result<PidFd> spawn(const std::vector<std::string>& argv, int out, int errors, Network network) {
  const auto path = TRY(find_program(argv.front()));
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid < 0) return sys_fail("fork");
  if (pid == 0) exec_program(path, argv, out, errors, parent, network);
  return open_process(pid);
}

Error ended_badly(const std::string& name, int status) {
  if (WIFSIGNALED(status))
    return fail(VIR_ERR_OPERATION_FAILED, name + " was ended by signal " + std::to_string(WTERMSIG(status)));
  return fail(VIR_ERR_OPERATION_FAILED, name + " ended with " + std::to_string(WEXITSTATUS(status)));
}

struct Pipe {
  Fd read, write;
  static Result<Pipe> make() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_fail("pipe");
    return Pipe{Fd(ends[0]), Fd(ends[1])};
  }
};

// Reads both until their ends. False: the time is over.
bool collect(Pipe& out, Pipe& errors, Ended& ended, std::chrono::steady_clock::time_point deadline) {
  pollfd polled[] = {{out.read.get(), POLLIN, 0}, {errors.read.get(), POLLIN, 0}};
  std::string* texts[] = {&ended.out, &ended.errors};
  for (int open = 2; open > 0;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    if (::poll(polled, 2, static_cast<int>(left.count())) < 0 && errno != EINTR) return false;
    for (int i = 0; i < 2; ++i) {
      if (polled[i].fd < 0 || polled[i].revents == 0) continue;
      char buffer[8192];
      const auto got = ::read(polled[i].fd, buffer, sizeof buffer);
      if (got <= 0) {
        polled[i].fd = -1;
        --open;
      } else if (texts[i]->size() < kMaxProgramOutput) {
        texts[i]->append(buffer, static_cast<std::size_t>(got));
      }
    }
  }
  return true;
}

// Its lines as one.
std::string one_line(const std::string& text) {
  std::string line;
  for (const auto part : split(trim(text), '\n')) line += (line.empty() ? "" : "; ") + std::string(trim(part));
  return printable(line, 600);
}

}  // namespace

Result<Ended> run_program(const std::vector<std::string>& argv, int timeout_ms) {
  auto out = TRY(Pipe::make());
  auto errors = TRY(Pipe::make());
  Running running = TRY(Running::start(argv, out.write, errors.write));
  out.write.reset();
  errors.write.reset();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  Ended ended;
  if (!collect(out, errors, ended, deadline))
    return fail(VIR_ERR_OPERATION_TIMEOUT,
                argv.front() + " did not end within " + std::to_string(timeout_ms / 1000) + " seconds");
  const int status = TRY(running.wait());
  if (!WIFEXITED(status)) return ended_badly(argv.front(), status);
  ended.status = WEXITSTATUS(status);
  return ended;
}

Result<std::string> need_program(const std::vector<std::string>& argv, int timeout_ms) {
  auto ended = TRY(run_program(argv, timeout_ms));
  if (ended.status == 0) return std::move(ended.out);
  auto why = one_line(ended.errors.empty() ? ended.out : ended.errors);
  if (why.starts_with(argv.front() + ": ")) why.erase(0, argv.front().size() + 2);
  return fail(VIR_ERR_OPERATION_FAILED,
              argv.front() + ": " + (why.empty() ? "status " + std::to_string(ended.status) : why));
}

Result<Running> Running::start(const std::vector<std::string>& argv, const Fd& out, const Fd& errors,
                               Network network) {
  return Running(TRY(spawn(argv, out.get(), errors.get(), network)));
}

Result<int> Running::wait() {
  const auto status = TRY(wait_process(process_));
  process_.reset();
  return *status;
}

std::chrono::nanoseconds Running::time_used() const {
  constexpr std::string_view kMark = "\nPid:\t";
  const auto facts = read_kernel_file("/proc/self/fdinfo/" + std::to_string(process_.get()));
  const auto at = facts ? facts->find(kMark) : std::string::npos;
  if (at == std::string::npos) return {};
  const auto rest = std::string_view(*facts).substr(at + kMark.size());
  const auto pid = parse_number<pid_t>(rest.substr(0, rest.find('\n')));
  clockid_t clock{};
  timespec used{};
  if (!pid || ::clock_getcpuclockid(*pid, &clock) != 0 || ::clock_gettime(clock, &used) != 0) return {};
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

Running& Running::operator=(Running&& other) noexcept {
  Running moved(std::move(other));
  std::swap(process_, moved.process_);
  return *this;
}

Running::~Running() {
  if (!process_) return;
  (void)send_signal(process_, SIGKILL);
  (void)wait_process(process_);
}

Result<void> Running::end(int timeout_ms) {
  if (!process_) return {};
  TRY(send_signal(process_, SIGINT));
  const auto status = TRY(wait_process(process_, timeout_ms));
  if (!status) return fail(VIR_ERR_OPERATION_TIMEOUT, "it did not end in time");
  process_.reset();
  if (!WIFEXITED(*status) || WEXITSTATUS(*status) != 0) return ended_badly("it", *status);
  return {};
}

}  // namespace virtuserns::kernel
