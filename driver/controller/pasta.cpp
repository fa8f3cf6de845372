#include "driver/controller/pasta.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/controller/confine.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/idmap.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

constexpr int kStartTimeoutMs = 15'000;
constexpr int kEndTimeoutMs = 5'000;
constexpr int kNotInstalled = 127;  // as a shell says it
constexpr std::size_t kMaxSaid = 2048;

// Some 75 MB of buffers, of which it touches a third; a socket for each connection and each port.
constexpr rlim_t kMaxMemory = rlim_t{512} << 20, kMaxDescriptors = 16'384;

// What it says is partly about the system's logger, which nobody has asked for.
std::string last_line(const std::string& said) {
  std::string last;
  for (const auto line : split(said, '\n'))
    if (!trim(line).empty() && !line.starts_with("Failed to send ")) last = printable(trim(line));
  return last;
}

Error refused(const std::string& said) {
  std::string text = "pasta says: " + (said.empty() ? std::string("nothing") : said);
  if (said.find("tun") != std::string::npos)
    text += " (it needs '/dev/net/tun', open to everybody as udev makes it: is the module tun there?)";
  else if (said.find("External interface") != std::string::npos)
    text += " (the host has no default route with an address: name one of its interfaces in <source dev=''/>)";
  else if (said.find("bind any port") != std::string::npos)
    text += " (another program has it, or it is below net.ipv4.ip_unprivileged_port_start)";
  return fail(VIR_ERR_OPERATION_FAILED, std::move(text));
}

Result<void> set_limits() {
  const std::pair<__rlimit_resource, rlim_t> limits[] = {
      {RLIMIT_AS, kMaxMemory}, {RLIMIT_NOFILE, kMaxDescriptors}, {RLIMIT_CORE, 0}, {RLIMIT_FSIZE, 0}};
  for (const auto& [resource, most] : limits) {
    rlimit now{};
    if (::getrlimit(resource, &now) != 0) return sys_fail("read resource limit");
    const auto value = std::min(most, now.rlim_max);
    const rlimit limit{value, value};
    if (::setrlimit(resource, &limit) != 0) return sys_fail("set resource limit");
  }
  return {};
}

// Descriptors 3.. become `files`, standard error `said`, and nothing else stays open.
Result<void> arrange(std::vector<int> files, int said) {
  const int base = 3 + static_cast<int>(files.size());
  for (auto& file : files)
    if ((file = ::fcntl(file, F_DUPFD, base)) < 0) return sys_fail("arrange descriptors");
  const Fd nothing(::open("/dev/null", O_RDWR));
  if (!nothing || ::dup2(said, 2) < 0 || ::dup2(nothing.get(), 0) < 0 || ::dup2(nothing.get(), 1) < 0)
    return sys_fail("arrange descriptors");
  for (std::size_t i = 0; i < files.size(); ++i)
    if (::dup2(files[i], 3 + static_cast<int>(i)) < 0) return sys_fail("arrange descriptors");
  if (::close_range(static_cast<unsigned>(base), ~0u, 0) != 0) return sys_fail("close files");
  return {};
}

Result<void> become(const LaunchPlan& plan, pid_t keeper) {
  TRY(set_limits());
  // It sets no_new_privs itself; until then this is what keeps set-user-id programs from giving it anything.
  TRY(kernel::limit_bounding_set(0));
  if (::setgroups(0, nullptr) != 0) return sys_fail("drop groups");
  if (::setresgid(plan.host_gid, plan.host_gid, plan.host_gid) != 0) return sys_fail("take group id");
  if (::setresuid(plan.host_uid, plan.host_uid, plan.host_uid) != 0) return sys_fail("take user id");
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return sys_fail("set death signal");
  if (::getppid() != keeper) ::_exit(1);
  return {};
}

// Its ping is by sockets that a namespace gives to nobody at first.
void allow_ping(gid_t gid) {
  const Fd file(::open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY | O_CLOEXEC));
  const std::string range = std::to_string(gid) + " " + std::to_string(gid);
  if (file) (void)!::write(file.get(), range.data(), range.size());
}

[[noreturn]] void run_between(const LaunchPlan& plan, const Fd& done) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  // The namespaces are to be the domain's own. CAP_SYS_ADMIN stays for hosts that forbid user namespaces to the unprivileged.
  const bool is_made =
      ::setgroups(0, nullptr) == 0 && ::setresgid(plan.host_gid, plan.host_gid, plan.host_gid) == 0 &&
      ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0 && ::setresuid(plan.host_uid, plan.host_uid, plan.host_uid) == 0 &&
      kernel::limit_capabilities(capability_bit(CAP_SYS_ADMIN)) && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
  const int err = is_made ? 0 : errno;
  (void)!::write(done.get(), &err, sizeof err);
  for (;;) ::pause();
}

struct Pipe {
  Fd reading, writing;
};
Result<Pipe> make_pipe() {
  int pair[2];
  if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
  return Pipe{Fd(pair[0]), Fd(pair[1])};
}

struct Ends {
  std::vector<int> files;
  int said = -1;
  const NsFd* from = nullptr;
};

[[noreturn]] void run(const LaunchPlan& plan, std::vector<std::string>& words, const Ends& ends, pid_t keeper) {
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  reset_signals();
  auto ready = ends.from ? kernel::enter_namespace(*ends.from, CLONE_NEWNET) : Result<void>();
  if (ready && ends.from) allow_ping(plan.host_gid);
  if (ready) ready = arrange(ends.files, ends.said);
  if (ready) ready = become(plan, keeper);
  if (ready) {
    ::execvp(argv[0], argv.data());
    if (errno == ENOENT) ::_exit(kNotInstalled);
    ready = sys_fail("execute pasta");
  }
  const auto text = ready.error().text + "\n";
  (void)!::write(2, text.data(), text.size());
  ::_exit(1);
}

}  // namespace

Result<NamespacePair> make_between(const LaunchPlan& plan, const DirFd& proc) {
  const auto pipe = TRY(make_pipe());
  auto cloned = TRY(kernel::clone_process({}));
  if (cloned.pid == 0) run_between(plan, pipe.writing);
  const kernel::Errand maker(std::move(cloned.pidfd));
  int err = 0;
  if (::read(pipe.reading.get(), &err, sizeof err) != sizeof err)
    return fail(VIR_ERR_OPERATION_FAILED, "make a network between: its maker was killed");
  if (err != 0) return sys_fail("make a network between", err);
  NamespacePair pair;
  pair.user = TRY(kernel::open_namespace(proc, cloned.pid, "user"));
  pair.net = TRY(kernel::open_namespace(proc, cloned.pid, "net"));
  TRY(kernel::write_id_maps(proc, cloned.pid, {{{0, plan.host_uid, 1}}, {{0, plan.host_gid, 1}}}),
      "make a network between");
  return pair;
}

Result<Pasta> Pasta::start(const LaunchPlan& plan, std::vector<std::string> words, const NamespacePair& target,
                           const NsFd* from) {
  auto said = TRY(make_pipe()), ready = TRY(make_pipe());
  // It opens it by name, and so has to own it.
  if (::fchown(ready.writing.get(), plan.host_uid, plan.host_gid) != 0) return sys_fail("make pipe");
  if (::fcntl(said.reading.get(), F_SETFL, O_NONBLOCK) != 0) return sys_fail("make pipe");
  words.insert(words.end(),
               {"--userns", "/proc/self/fd/3", "--netns", "/proc/self/fd/4", "--pid", "/proc/self/fd/5"});
  const pid_t keeper = ::getpid();
  auto cloned = TRY(kernel::clone_process({}), "start pasta");
  if (cloned.pid == 0)
    run(plan, words, {{target.user.get(), target.net.get(), ready.writing.get()}, said.writing.get(), from}, keeper);
  ready.writing.reset();
  said.writing.reset();
  Pasta pasta(std::move(cloned.pidfd), std::move(said.reading));
  TRY(pasta.await(ready.reading));
  return pasta;
}

Result<void> Pasta::await(const Fd& ready) {
  pollfd entries[] = {{ready.get(), POLLIN, 0}, {process_.get(), POLLIN, 0}};
  int found = 0;
  while ((found = ::poll(entries, 2, kStartTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (found == 0) return fail(VIR_ERR_OPERATION_TIMEOUT, "pasta is not ready in time");
  char byte = 0;
  if ((entries[0].revents & POLLIN) != 0 && ::read(ready.get(), &byte, 1) == 1) return {};
  const auto status = TRY(kernel::wait_process(process_, kEndTimeoutMs), "wait for pasta");
  if (status && WIFEXITED(*status) && WEXITSTATUS(*status) == kNotInstalled)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                "pasta is not installed, without which there is no <interface type='user'>: install package passt");
  std::string text(kMaxSaid, '\0');
  const auto size = ::read(said_.get(), text.data(), text.size());
  text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  return refused(last_line(text));
}

Pasta::~Pasta() {
  if (!process_) return;
  (void)kernel::send_signal(process_, SIGKILL);
  (void)kernel::wait_process(process_, kEndTimeoutMs);
}

std::string Pasta::why_ended() {
  const auto status = kernel::wait_process(process_, 0);
  if (!status || !*status) return "ended";
  if (WIFEXITED(**status)) return "exited with status " + std::to_string(WEXITSTATUS(**status));
  return "was killed by signal " + std::to_string(WTERMSIG(**status));
}

}  // namespace virtuserns::controller
