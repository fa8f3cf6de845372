#include "driver/userns/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <optional>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/protocol.h"

namespace virtuserns::userns {

namespace {

// On a descriptor that nobody can change any more.
Result<Fd> sealed(const std::vector<std::uint8_t>& bytes) {
  Fd file(::memfd_create("virtuserns-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return sys_fail("memfd_create");
  if (::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    return sys_fail("write plan");
  if (::lseek(file.get(), 0, SEEK_SET) != 0) return sys_fail("rewind plan");
  if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
    return sys_fail("seal plan");
  return file;
}

Fd open_log(const std::string& path) {
  return Fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
}

// `run`: the socket's path without ".sock": unique on this machine.
std::string mark_of(const std::string& run) { return "VIRTUSERNS_RUN=" + run; }

// Only the root of the machine reads the environment of a controller. A user's has the mark among its words as well, which
// everybody may read (proc(5), /proc/pid/cmdline).
bool has_mark(const std::string& process, const std::string& mark) {
  for (const char* file : {"/environ", "/cmdline"}) {
    const auto text = read_kernel_file(process + file, 1024 * 1024);
    if (!text || text->find(mark) == std::string::npos) continue;
    const auto words = split(*text, '\0');
    if (std::find(words.begin(), words.end(), mark) != words.end()) return true;
  }
  return false;
}

class Spawn {
 public:
  // `first_unused`: the descriptors below are for the child, everything from there on is closed.
  explicit Spawn(int first_unused) : first_unused_(first_unused) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    ::posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
  }
  ~Spawn() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;

  Result<void> pass(int fd, int as) {
    // Moved out of the way: dup2 to 3, 4, 5.. must not hit a source that is still to be copied. No higher than needed,
    // because the limit of descriptors may be low.
    Fd high(::fcntl(fd, F_DUPFD_CLOEXEC, first_unused_));
    if (!high) return sys_fail("duplicate descriptor");
    sources_.push_back(std::move(high));
    ::posix_spawn_file_actions_adddup2(&actions_, sources_.back().get(), as);
    return {};
  }

  Result<void> log_to(const std::string& path) {
    Fd log = open_log(path);
    if (!log) log = Fd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (!log) return sys_fail("open /dev/null");
    TRY(pass(log.get(), 1));
    return pass(log.get(), 2);
  }

  // Which would keep a channel open that the child has closed.
  void close_sources() { sources_.clear(); }

  Result<pid_t> run(const std::string& program, const std::string& argument, std::string mark = {}) {
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, first_unused_);
    std::string name = program, word = argument;
    char* argv[] = {name.data(), word.data(), ::geteuid() != 0 && !mark.empty() ? mark.data() : nullptr, nullptr};
    char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char* environment[] = {path, mark.empty() ? nullptr : mark.data(), nullptr};
    pid_t pid = 0;
    if (const int err = ::posix_spawn(&pid, program.c_str(), &actions_, &attributes_, argv, environment); err != 0)
      return sys_fail("run " + quote(program), err);
    return pid;
  }

 private:
  const int first_unused_;
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
  std::vector<Fd> sources_;
};

}  // namespace

pid_t find_controller(const std::string& proc, const LaunchPlan& plan) {
  const std::string mark = mark_of(plan.socket_path.substr(0, plan.socket_path.rfind('.')));
  pid_t oldest = 0;
  std::uint64_t oldest_time = 0;
  const auto names = list_directory(proc);
  if (!names) return 0;
  for (const auto& name : *names) {
    const auto pid = parse_number<pid_t>(name);
    if (!pid || *pid == ::getpid()) continue;
    if (!has_mark(proc + "/" + name, mark)) continue;
    const auto time = read_start_time(proc, *pid);
    if (time && (oldest == 0 || *time < oldest_time)) oldest = *pid, oldest_time = *time;
  }
  return oldest;
}

void append_to_log(const std::string& log_path, const std::string& text) {
  const Fd log = open_log(log_path);
  if (!log) return;
  const std::string line = format_log_line(std::time(nullptr), text);
  (void)!::write(log.get(), line.data(), line.size());
}

namespace {

// nullopt: it has not ended in time, or before it was unwanted.
std::optional<int> wait_child(pid_t pid, int timeout_ms, const std::function<bool()>& is_unwanted = {}) {
  int status = 0;
  for (int waited_ms = 0;; waited_ms += 2) {
    if (::waitpid(pid, &status, WNOHANG) != 0) return status;
    if (waited_ms >= timeout_ms || (is_unwanted && is_unwanted())) return std::nullopt;
    ::usleep(2'000);
  }
}

// Takes no more descriptors than it has to: it cleans up also after a start for which there were too few.
Result<void> run_reaper(const std::string& program, const LaunchPlan& plan, const Fd& plan_file,
                        const std::string& log_path, int timeout_ms) {
  if (::lseek(plan_file.get(), 0, SEEK_SET) != 0) return sys_fail("rewind plan");
  Spawn spawn(controller::kPlanFd + 1);
  (void)spawn.log_to(log_path);  // else it says to our own stderr what it has to say
  TRY(spawn.pass(plan_file.get(), controller::kPlanFd));
  const pid_t pid = TRY(spawn.run(program, "--reap"));
  const auto status = wait_child(pid, timeout_ms);
  if (!status) {
    ::kill(pid, SIGKILL);
    (void)wait_child(pid, 1000);
    return fail(VIR_ERR_OPERATION_TIMEOUT, "clean up after domain " + quote(plan.name) + ": not finished in time");
  }
  if (*status != 0)
    return fail(VIR_ERR_OPERATION_FAILED, "clean up after domain " + quote(plan.name) + ": see " + quote(log_path));
  return {};
}

Result<pid_t> spawn_controller(const LaunchRequest& request, const Fd& plan, const SocketFd& channel) {
  Spawn spawn(controller::kFirstPassedFd + static_cast<int>(request.files->size()));
  TRY(spawn.log_to(request.log_path));
  TRY(spawn.pass(plan.get(), controller::kPlanFd));
  TRY(spawn.pass(channel.get(), controller::kChannelFd));
  int next = controller::kFirstPassedFd;
  for (const auto& file : *request.files) TRY(spawn.pass(file.get(), next++));
  // The name is only there for ps(1): one that looks like an option must not be taken for it.
  const std::string shown = request.name.starts_with('-') ? "./" + request.name : request.name;
  return spawn.run(request.program, shown, mark_of(request.run));
}

}  // namespace

Result<Launched> launch_controller(const LaunchRequest& request) {
  Launched launched;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("socketpair");
  launched.channel = SocketFd(pair[0]);
  SocketFd theirs(pair[1]);
  if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("pipe");
  Fd plan(pair[0]);
  launched.plan = Fd(pair[1]);
  launched.pid = TRY(spawn_controller(request, plan, theirs));
  theirs.reset();
  plan.reset();
  // A child that nobody has waited for: the number is its own even if it is dead already.
  auto process = open_pidfd(launched.pid);
  if (!process) {
    ::kill(launched.pid, SIGKILL);
    ::waitpid(launched.pid, nullptr, 0);
    return std::move(process).error();
  }
  launched.process = std::move(process).value();
  if (const auto time = read_start_time("/proc", launched.pid)) launched.start_time = *time;
  return launched;
}

Result<void> hand_over_plan(Launched& launched, const std::vector<std::uint8_t>& plan) {
  const Fd pipe = std::move(launched.plan);
  // All of it into the pipe itself: whoever is to read it may be stopped.
  constexpr std::size_t kPipeBytes = 64 * 1024;
  if (plan.size() > kPipeBytes && ::fcntl(pipe.get(), F_SETPIPE_SZ, static_cast<int>(plan.size())) < 0)
    return sys_fail("make room for the plan");
  if (::fcntl(pipe.get(), F_SETFL, O_NONBLOCK) != 0 ||
      ::write(pipe.get(), plan.data(), plan.size()) != static_cast<ssize_t>(plan.size()))
    return sys_fail("write plan");
  return {};
}

Result<void> reap_domain(const std::string& program, const LaunchPlan& plan, const std::string& log_path,
                         int timeout_ms) {
  return run_reaper(program, plan, TRY(sealed(encode_plan(plan))), log_path, timeout_ms);
}

Result<std::vector<Fd>> open_sources(const std::string& program, const controller::OpenAsk& ask,
                                     const std::string& log_path, int timeout_ms) {
  const Fd plan = TRY(sealed(xdr::encode(ask)));
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("socketpair");
  const SocketFd ours(pair[0]);
  SocketFd theirs(pair[1]);
  Spawn spawn(controller::kChannelFd + 1);
  TRY(spawn.log_to(log_path));
  TRY(spawn.pass(plan.get(), controller::kPlanFd));
  TRY(spawn.pass(theirs.get(), controller::kChannelFd));
  const pid_t pid = TRY(spawn.run(program, "--open"));
  spawn.close_sources();
  theirs.reset();
  pollfd entry{ours.get(), POLLIN, 0};
  const int ready = ::poll(&entry, 1, timeout_ms);
  auto packet = ready > 0 ? recv_packet(ours.get())
                          : fail(VIR_ERR_OPERATION_TIMEOUT, "open the device's source: not finished in time");
  if (!packet) ::kill(pid, SIGKILL);
  // A file system that does not answer may hold it for longer; somebody else takes its status then.
  (void)wait_child(pid, 1000);
  if (!packet) return std::move(packet).error();
  if (packet->bytes.empty())
    return fail(VIR_ERR_OPERATION_FAILED, "open the device's source: see " + quote(log_path));
  const auto answer = TRY(xdr::decode_exact<controller::OpenerAnswer>(packet->bytes));
  if (const auto* error = std::get_if<controller::WireError>(&answer))
    return Error{error->code, error->sys_errno, error->text};
  return std::move(packet->files);
}

Result<void> dump_domain(const std::string& program, const controller::DumpAsk& ask, const Fd& output,
                         const std::string& log_path, int timeout_ms, const std::function<bool()>& is_unwanted) {
  const Fd plan = TRY(sealed(xdr::encode(ask)));
  Spawn spawn(controller::kChannelFd + 1);
  TRY(spawn.log_to(log_path));
  TRY(spawn.pass(plan.get(), controller::kPlanFd));
  TRY(spawn.pass(output.get(), controller::kChannelFd));
  const pid_t pid = TRY(spawn.run(program, "--dump"));
  const auto status = wait_child(pid, timeout_ms, is_unwanted);
  if (!status) {
    ::kill(pid, SIGKILL);
    (void)wait_child(pid, 1000);
    if (is_unwanted()) return fail(VIR_ERR_OPERATION_ABORTED, "the domain is being destroyed");
    return fail(VIR_ERR_OPERATION_TIMEOUT, "not finished in time: the domain holds up whoever looks at it");
  }
  return *status == 0 ? Result<void>() : fail(VIR_ERR_OPERATION_FAILED, "see " + quote(log_path));
}

Result<PidFd> open_pidfd(pid_t pid) {
  PidFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return sys_fail("pidfd_open " + std::to_string(pid));
  return process;
}

Result<std::uint64_t> read_start_time(const std::string& proc, pid_t pid) {
  const std::string stat = TRY(read_kernel_file(proc + "/" + std::to_string(pid) + "/stat", 4096));
  // The second field may hold anything, also blanks and brackets; the last ')' ends it.
  const auto fields = split_blanks(std::string_view(stat).substr(std::min(stat.size(), stat.rfind(')') + 1)));
  // Where nobody collects orphans soon, a dead process keeps its number, and its start time.
  if (!fields.empty() && (fields[0] == "Z" || fields[0] == "X"))
    return fail(VIR_ERR_OPERATION_FAILED, "process " + std::to_string(pid) + " has ended");
  const auto time = fields.size() > 19 ? parse_number<std::uint64_t>(fields[19]) : std::nullopt;
  if (!time) return fail(VIR_ERR_INTERNAL_ERROR, "start time of process " + std::to_string(pid) + " is unknown");
  return *time;
}

void kill_and_wait(const PidFd& process, int timeout_ms) {
  ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
  pollfd ended{process.get(), POLLIN, 0};
  (void)::poll(&ended, 1, timeout_ms);
  reap_zombie(process);
}

void await_exit(const PidFd& process, int timeout_ms) {
  pollfd ended{process.get(), POLLIN, 0};
  if (::poll(&ended, 1, timeout_ms) <= 0) kill_and_wait(process, 1000);
  reap_zombie(process);
}

void reap_zombie(const PidFd& process) {
  // A tracer (a debugger, strace) gets the end before the parent does: nothing to be had yet is not "not our child".
  siginfo_t info{};
  for (int i = 0; i < 50; ++i) {
    if (::waitid(P_PIDFD, static_cast<id_t>(process.get()), &info, WEXITED | WNOHANG) != 0 || info.si_pid != 0)
      return;
    pollfd ended{process.get(), POLLIN, 0};
    if (::poll(&ended, 1, 0) <= 0) return;  // it lives
    ::usleep(2'000);
  }
}

}  // namespace virtuserns::userns
