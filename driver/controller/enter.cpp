#include "driver/controller/enter.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/confine.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/console.h"

namespace virtuserns::controller {

namespace {

constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// Dies with the controller. A change of ids clears it (prctl(2)), so after each of them again.
Result<void> die_with_controller() {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return sys_fail("set death signal");
  return {};
}

// A command's three descriptors, and the ends that whoever asked gets.
struct Stdio {
  std::array<Fd, 3> inner;
  std::vector<Fd> outer;
};

// Pipes of our own, so that nothing that the caller has open comes in: a file of the host would stay reachable through
// it, and a terminal could be typed into.
Result<Stdio> make_pipes() {
  Stdio stdio;
  for (std::size_t i = 0; i < 3; ++i) {
    int pair[2];
    if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
    Fd reading(pair[0]), writing(pair[1]);
    stdio.inner[i] = std::move(i == 0 ? reading : writing);
    stdio.outer.push_back(std::move(i == 0 ? writing : reading));
  }
  return stdio;
}

Result<Stdio> make_terminal(const Fd& devpts, const ExecDef& command) {
  auto pty = TRY(kernel::open_pty(devpts));
  Stdio stdio;
  stdio.inner[0] = TRY(kernel::open_slave(pty.master));
  const winsize size{static_cast<unsigned short>(command.rows), static_cast<unsigned short>(command.columns), 0, 0};
  if (command.rows != 0 && ::ioctl(pty.master.get(), TIOCSWINSZ, &size) != 0) return sys_fail("size of terminal");
  stdio.outer.push_back(std::move(pty.master));
  return stdio;
}

// The same terminal by its name inside: programs look for the name of what they have open. Whatever else lies there is
// not taken. Never the controlling terminal yet, and never blocking: the name may be anything.
Fd reopen_by_name(const Fd& slave) {
  struct stat wanted {
  }, found{};
  if (::fstat(slave.get(), &wanted) != 0) return {};
  const std::string path = "/dev/pts/" + std::to_string(minor(wanted.st_rdev));
  Fd named(::open(path.c_str(), O_RDWR | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!named || ::fstat(named.get(), &found) != 0 || found.st_dev != wanted.st_dev || found.st_ino != wanted.st_ino ||
      found.st_rdev != wanted.st_rdev)
    return {};
  return named;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const auto& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// In the container's namespaces, as container root, single, traced and looked into by nobody.
class Entrant {
 public:
  Entrant(const LaunchPlan& plan, const Entry& entry, Stdio stdio)
      : plan_(plan),
        command_(entry.command),
        stdio_(std::move(stdio)),
        program_(entry.program),
        channel_(entry.channel) {}

  // Returns only when there is no command: success is exec.
  Result<NotRun> run() {
    TRY(die_with_controller());
    ::umask(022);
    reset_signals();
    TRY(make_session());
    auto identity = TRY(read_identity({"user", "group", command_.user, command_.group}));
    make_environment(identity.home);
    TRY(take_stdio(identity.uid));
    for (const auto& step : plan_.inside) {
      if (const auto* limit = std::get_if<RlimitStep>(&step)) TRY(set_limit(*limit));
      if (const auto* persona = std::get_if<PersonalityStep>(&step)) TRY(set_personality(*persona));
      if (const auto* capabilities = std::get_if<CapabilitiesStep>(&step)) confinement_.set(*capabilities);
      if (const auto* filter = std::get_if<SeccompStep>(&step)) confinement_.set(*filter);
    }
    confinement_.set(std::move(identity));
    TRY(confinement_.give_up_privileges());
    // As the user: a directory that it may not enter is not entered for it.
    const std::string directory = command_.directory.empty() ? "/" : command_.directory;
    if (::chdir(directory.c_str()) != 0) return sys_fail("enter " + quote(directory));
    pollfd parent{channel_, 0, 0};
    if (::poll(&parent, 1, 0) > 0 && (parent.revents & POLLHUP) != 0) ::_exit(1);
    TRY(send_packet(channel_, xdr::encode(ChildMessage(AboutToExec{}))));
    // Answered by the kernel itself: the listener of a command's own filter would end with it.
    (void)TRY(confinement_.install_filter(kernel::Refusals::kAnswered));
    return exec();
  }
  [[nodiscard]] int channel() const { return channel_; }

 private:
  void set_variable(const std::string& variable) {
    const std::string prefix = variable.substr(0, variable.find('=') + 1);
    for (auto& known : environment_)
      if (known.starts_with(prefix)) {
        known = variable;
        return;
      }
    environment_.push_back(variable);
  }

  void make_environment(const std::string& home) {
    environment_ = {std::string("PATH=") + kDefaultPath, "HOME=" + home};
    for (const auto& variable : std::get<ExecStep>(plan_.inside.back()).env)
      if (variable.starts_with("container=") || variable.starts_with("container_uuid=")) set_variable(variable);
    for (const auto& variable : command_.environment) set_variable(variable);
  }

  // Descriptors 0, 1, 2, the channel as 3 and the program as 4, which exec closes; nothing else is open then.
  Result<void> take_stdio(uid_t uid) {
    if (command_.has_terminal) TRY(take_terminal());
    std::array<int, 3> high{};
    for (std::size_t i = 0; i < 3; ++i) {
      const Fd& file = stdio_.inner[command_.has_terminal ? 0 : i];
      // Owned by the user, who may then open /dev/stdout again.
      if (uid != 0 && ::fchown(file.get(), uid, static_cast<gid_t>(-1)) != 0) return sys_fail("give away stdio");
      high[i] = ::fcntl(file.get(), F_DUPFD_CLOEXEC, 10);
      if (high[i] < 0) return sys_fail("make stdio");
    }
    const int channel = ::fcntl(channel_, F_DUPFD_CLOEXEC, 10);
    const int program = program_ < 0 ? -1 : ::fcntl(program_, F_DUPFD_CLOEXEC, 10);
    if (channel < 0 || (program_ >= 0 && program < 0)) return sys_fail("make stdio");
    for (int fd = 0; fd < 3; ++fd)
      if (::dup2(high[static_cast<std::size_t>(fd)], fd) < 0) return sys_fail("make stdio");
    if (::dup3(channel, 3, O_CLOEXEC) < 0) return sys_fail("make stdio");
    channel_ = 3;
    if (program_ >= 0) {
      if (::dup3(program, 4, O_CLOEXEC) < 0) return sys_fail("make stdio");
      program_ = 4;
    }
    if (::close_range(program_ >= 0 ? 5 : 4, ~0u, 0) != 0) return sys_fail("close files");
    return {};
  }

  Result<void> take_terminal() {
    Fd& slave = stdio_.inner[0];
    if (Fd named = reopen_by_name(slave)) slave = std::move(named);
    if (::ioctl(slave.get(), TIOCSCTTY, 0) != 0) return sys_fail("make the terminal the controlling one");
    if (::fcntl(slave.get(), F_SETFL, O_RDWR) != 0) return sys_fail("make the terminal blocking");
    return {};
  }

  Result<NotRun> exec() {
    const std::vector<std::string> arguments(command_.arguments.begin(), command_.arguments.end());
    const auto argv = pointers(arguments), env = pointers(environment_);
    const std::string& program = arguments.front();
    int err = ENOENT;
    if (program_ >= 0) {
      ::execveat(program_, "", argv.data(), env.data(), AT_EMPTY_PATH);
      err = errno;
    } else if (program.find('/') != std::string::npos) {
      ::execve(program.c_str(), argv.data(), env.data());
      err = errno;
    } else {
      for (const auto folder : split(search_path(), ':')) {
        const std::string path = (folder.empty() ? std::string(".") : std::string(folder)) + "/" + program;
        ::execve(path.c_str(), argv.data(), env.data());
        // As execvp(3): one that may not be run is remembered, the search goes on.
        if (errno != ENOENT && errno != ENOTDIR) err = errno;
        if (err != ENOENT && err != EACCES) break;
      }
    }
    auto error = sys_fail("run " + quote(program), err);
    return NotRun{exec_status_of(err), std::move(error.text)};
  }

  [[nodiscard]] std::string_view search_path() const {
    constexpr std::string_view kName = "PATH=";
    for (const auto& variable : environment_)
      if (variable.starts_with(kName)) return std::string_view(variable).substr(kName.size());
    return kDefaultPath;
  }

  const LaunchPlan& plan_;
  const ExecDef& command_;
  Stdio stdio_;
  int program_, channel_;
  std::vector<std::string> environment_;
  Confinement confinement_;
};

[[noreturn]] void run_entrant(Entrant entrant) {
  const auto result = entrant.run();
  ChildMessage message;
  if (result)
    message = NotRun{result->status, result->text.substr(0, kMaxErrorText)};
  else
    message = to_wire(result.error());
  (void)send_packet(entrant.channel(), xdr::encode(message));
  ::_exit(1);
}

Result<void> join(const LaunchPlan& plan, const Entry& entry, const Doors& doors) {
  // Before anything else; it is the controller's too, but nothing here is to depend on that.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return sys_fail("become undumpable");
  TRY(die_with_controller());
  for (const auto& tasks : doors.tasks)
    if (::write(tasks.get(), "0", 1) != 1) return sys_fail("enter control group");
  TRY(apply_apparmor(plan, *doors.host_proc));
  std::vector<int> kept = {entry.channel, entry.program, doors.devpts->get()};
  const std::pair<const NsFd*, int> namespaces[] = {{&doors.user, CLONE_NEWUSER},     {&doors.ipc, CLONE_NEWIPC},
                                                    {&doors.uts, CLONE_NEWUTS},       {&doors.net, CLONE_NEWNET},
                                                    {&doors.cgroup, CLONE_NEWCGROUP}, {&doors.pid, CLONE_NEWPID},
                                                    {&doors.mount, CLONE_NEWNS}};
  for (const auto& [ns, flag] : namespaces) kept.push_back(ns->get());
  TRY(close_all_but(std::move(kept)));
  // The ids of the domain before its user namespace: a host id has no business in there. They own it, so entering needs
  // no capability of the host's (user_namespaces(7)).
  TRY(become(plan.host_uid, plan.host_gid), "host ids");
  TRY(kernel::limit_capabilities(0));
  Stdio stdio = TRY(entry.command.has_terminal ? make_terminal(*doors.devpts, entry.command) : make_pipes());
  for (const auto& [ns, flag] : namespaces) {
    TRY(kernel::enter_namespace(*ns, flag));
    if (flag == CLONE_NEWUSER) TRY(become(0, 0), "ids of the container");
  }
  for (const auto& [ns, flag] : namespaces) ::close(ns->get());
  ::close(doors.devpts->get());
  // The pid namespace is for children only. CLONE_PARENT: the controller waits for it, and its death signal reaches it.
  auto cloned = TRY(kernel::clone_process({CLONE_PARENT, nullptr}));
  if (cloned.pid == 0) {
    stdio.outer.clear();
    run_entrant(Entrant(plan, entry, std::move(stdio)));
  }
  std::vector<int> files = {cloned.pidfd.get()};
  for (const auto& file : stdio.outer) files.push_back(file.get());
  return send_packet(entry.channel, xdr::encode(ChildMessage(Entered{cloned.pid})), files);
}

// A v2 group that hands controllers on to groups below may have no process of its own (cgroup-v2.rst, "No Internal
// Process Constraint"): systemd inside makes its own such. Then it is the group that init is in, which lies below.
Result<Fd> open_v2_tasks(const Host& host, const kernel::Cgroup& group, pid_t init) {
  const auto handed_on = group.read("cgroup.subtree_control");
  if (!handed_on || trim(*handed_on).empty()) return group.open_tasks();
  const std::string text = TRY(read_kernel_file_at(host.proc, std::to_string(init) + "/cgroup"));
  const std::string below = "/" + group.spec().path + "/";
  for (const auto line : split(text, '\n')) {
    if (!line.starts_with("0::")) continue;
    const auto at = line.find(below);
    if (at == std::string_view::npos) break;
    const std::string file = std::string(line.substr(at + below.size())) + "/cgroup.procs";
    Fd tasks(::openat(group.dir().get(), file.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!tasks) return sys_fail("open group " + quote(file));
    return tasks;
  }
  return group.open_tasks();
}

}  // namespace

Result<void> become(uid_t uid, gid_t gid) {
  if (::setgroups(0, nullptr) != 0) return sys_fail("drop groups");
  if (::setresgid(gid, gid, gid) != 0) return sys_fail("take group id " + std::to_string(gid));
  if (::setresuid(uid, uid, uid) != 0) return sys_fail("take user id " + std::to_string(uid));
  return die_with_controller();
}

Result<void> close_all_but(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned next = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (fd < 0) continue;
    if (number > next && ::close_range(next, number - 1, 0) != 0) return sys_fail("close files");
    next = std::max(next, number + 1);
  }
  if (::close_range(next, ~0u, 0) != 0) return sys_fail("close files");
  return {};
}

Result<Doors> open_doors(const Host& host, pid_t init, const Fd& devpts) {
  if (!devpts) return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the domain has no /dev/pts of its own");
  Doors doors;
  for (const auto& group : host.groups)
    doors.tasks.push_back(TRY(group.is_v2() ? open_v2_tasks(host, group, init) : group.open_tasks()));
  doors.user = TRY(kernel::open_namespace(host.proc, init, "user"));
  doors.ipc = TRY(kernel::open_namespace(host.proc, init, "ipc"));
  doors.uts = TRY(kernel::open_namespace(host.proc, init, "uts"));
  doors.net = TRY(kernel::open_namespace(host.proc, init, "net"));
  doors.cgroup = TRY(kernel::open_namespace(host.proc, init, "cgroup"));
  doors.pid = TRY(kernel::open_namespace(host.proc, init, "pid"));
  doors.mount = TRY(kernel::open_namespace(host.proc, init, "mnt"));
  doors.devpts = &devpts;
  doors.host_proc = &host.proc;
  return doors;
}

void run_joiner(const LaunchPlan& plan, const Entry& entry, const Doors& doors) {
  if (auto joined = join(plan, entry, doors); !joined) {
    (void)send_packet(entry.channel, xdr::encode(ChildMessage(to_wire(joined.error()))));
    ::_exit(1);
  }
  ::_exit(0);
}

}  // namespace virtuserns::controller
