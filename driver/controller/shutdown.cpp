#include "driver/controller/shutdown.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

constexpr int kInitctlTimeoutMs = 2000;

std::string_view base_name(std::string_view path) {
  constexpr std::string_view kDeleted = " (deleted)";  // proc(5): the file of a running program was replaced
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

// struct init_request of sysvinit's initreq.h.
struct InitctlRequest {
  std::int32_t magic = 0x03091969, command = 1, runlevel = 0, sleep_time = 0;
  char data[368] = {};
};

// Runs in a process of its own: the container decides what lies behind its paths, and a file system of its own (FUSE)
// may never answer.
Result<void> write_initctl(const InitProcess& init, bool reboot) {
  DirFd root(
      ::openat(init.proc.get(), (std::to_string(init.pid) + "/root").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return sys_fail("open the container's root");
  if (kernel::has_ended(init.process))
    return fail(VIR_ERR_OPERATION_INVALID, "init has ended");  // whose root is that?
  for (const char* path : {"/run/initctl", "/dev/initctl"}) {
    const auto place = kernel::resolve_in_root(root, path, kernel::Symlinks::kRefuse);
    struct stat st {};
    if (!place || ::fstat(place->get(), &st) != 0 || !S_ISFIFO(st.st_mode)) continue;
    // Opened through the handle that was looked at, so that it is that FIFO and nothing put there since.
    const std::string again = "self/fd/" + std::to_string(place->get());
    const Fd fifo(::openat(init.proc.get(), again.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!fifo) continue;  // ENXIO: nobody reads it
    InitctlRequest request;
    request.runlevel = reboot ? '6' : '0';
    if (::write(fifo.get(), &request, sizeof request) == sizeof request) return {};
  }
  return fail(VIR_ERR_OPERATION_FAILED, "the container has no initctl that anybody reads");
}

Result<void> ask_by_initctl(const InitProcess& init, bool reboot) {
  auto helper = TRY(kernel::clone_process({}));
  if (helper.pid == 0) ::_exit(write_initctl(init, reboot) ? 0 : 1);
  auto status = TRY(kernel::wait_process(helper.pidfd, kInitctlTimeoutMs));
  if (!status) {
    (void)kernel::send_signal(helper.pidfd, SIGKILL);
    status = TRY(kernel::wait_process(helper.pidfd, kInitctlTimeoutMs));
  }
  if (!status || *status != 0)
    return fail(VIR_ERR_OPERATION_FAILED, "the container has no initctl that anybody reads");
  return {};
}

struct Choice {
  int signal;
  Asked asked;
};

std::vector<Choice> choices(InitKind kind, bool reboot) {
  using enum Asked;
  switch (kind) {
    case InitKind::kSystemd:
      return {{SIGRTMIN + (reboot ? 5 : 4), kForWhatWasWanted}};  // systemd(1), "Signals"
    case InitKind::kBusybox:
      return {{reboot ? SIGTERM : SIGUSR2, kForWhatWasWanted}};
    case InitKind::kSysvinit:  // Ctrl-Alt-Del is its only signal that leads anywhere
      if (reboot) return {{SIGINT, kForWhatWasWanted}};
      return {{SIGPWR, kForWhatWasWanted}};
    case InitKind::kOther:
      break;
  }
  return {{SIGTERM, kToEnd}, {SIGINT, kToEnd}, {SIGPWR, kToEnd}};
}

// An init that takes its signals by sigtimedwait(2), as busybox and tini do: while it waits, the kernel takes the waited
// signals out of the mask that /proc/PID/status shows, and delivers them all the same.
bool is_waiting_for_signals(const InitProcess& init) {
  const auto where = read_kernel_file_at(init.proc, std::to_string(init.pid) + "/wchan", 4096);
  return where && where->find("sigtimedwait") != std::string::npos;
}

Result<Asked> ask_by_signal(const InitProcess& init, InitKind kind, bool reboot) {
  const bool takes_any = is_waiting_for_signals(init);
  const auto status = TRY(kernel::read_process_status(init.proc, init.pid));
  std::string names;
  for (const auto& choice : choices(kind, reboot)) {
    if (takes_any || is_handled(status, choice.signal)) {
      TRY(kernel::send_signal(init.process, choice.signal));
      return choice.asked;
    }
    names += (names.empty() ? "" : ", ") + std::to_string(choice.signal);
  }
  return fail(VIR_ERR_OPERATION_FAILED, "init handles none of the signals " + names +
                                            " and has no initctl: it cannot be asked to " +
                                            (reboot ? "reboot" : "shut down"));
}

std::string read_link(const DirFd& proc, const std::string& name) {
  char text[4096];
  const auto size = ::readlinkat(proc.get(), name.c_str(), text, sizeof text);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

}  // namespace

InitKind tell_init_kind(std::string_view exe, std::string_view cmdline) {
  const auto program = base_name(exe);
  // The applet is argv[0], or argv[1] of "busybox init". Not comm: a script named /sbin/init has that too, and its
  // program is the shell.
  auto applet = base_name(cmdline.substr(0, cmdline.find('\0')));
  if (applet == "busybox" && cmdline.size() > applet.size()) {
    cmdline.remove_prefix(std::min(cmdline.find('\0') + 1, cmdline.size()));
    applet = base_name(cmdline.substr(0, cmdline.find('\0')));
  }
  if (program == "systemd") return InitKind::kSystemd;
  if (program == "busybox" && (applet == "init" || applet == "linuxrc")) return InitKind::kBusybox;
  if (program == "init") return InitKind::kSysvinit;
  return InitKind::kOther;
}

bool is_handled(const kernel::ProcessStatus& status, int signal) {
  if (signal < 1 || signal > 64) return false;
  return ((status.caught | status.blocked) >> (signal - 1) & 1) != 0;
}

Result<Asked> ask_to_shut_down(const InitProcess& init, const ShutdownRequest& request) {
  const std::string pid = std::to_string(init.pid);
  const auto cmdline = read_kernel_file_at(init.proc, pid + "/cmdline", 256 * 1024);
  const auto kind = tell_init_kind(read_link(init.proc, pid + "/exe"), cmdline ? *cmdline : "");
  const bool is_initctl_wanted =
      request.way == ShutdownWay::kInitctl || (request.way == ShutdownWay::kAny && kind == InitKind::kSysvinit);
  if (is_initctl_wanted) {
    auto asked = ask_by_initctl(init, request.reboot);
    if (asked) return Asked::kForWhatWasWanted;
    if (request.way == ShutdownWay::kInitctl) return std::move(asked).error();
  }
  auto asked = ask_by_signal(init, kind, request.reboot);
  // An unknown init that reads an initctl all the same.
  if (!asked && request.way == ShutdownWay::kAny && !is_initctl_wanted && ask_by_initctl(init, request.reboot))
    return Asked::kForWhatWasWanted;
  return asked;
}

}  // namespace virtuserns::controller
