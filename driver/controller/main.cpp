// virtuserns-controller: starts one domain from a plan and supervises it until it is gone. See protocol.h for what it is
// given and what it answers.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/controller/dump.h"
#include "driver/controller/outer.h"
#include "driver/controller/plug.h"
#include "driver/controller/reap.h"
#include "driver/controller/stem.h"
#include "driver/controller/supervise.h"
#include "driver/kernel/caps.h"

namespace virtuserns::controller {
namespace {

// The files for init, and nothing else of what the daemon or its parent had open.
std::vector<Fd> take_files(const LaunchPlan& plan) {
  std::vector<Fd> files;
  const auto count = std::get<ExecStep>(plan.inside.back()).passed_files;
  const auto end = kFirstPassedFd + static_cast<int>(std::min(count, 1024u));
  ::close_range(static_cast<unsigned>(end), ~0u, 0);
  for (int fd = kFirstPassedFd; fd < end; ++fd) {
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    files.emplace_back(fd);
  }
  return files;
}

Result<SocketFd> listen_at(const HostFile& file) {
  if (!file.dir) return SocketFd();
  SocketFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return sys_fail("make control socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (file.name.size() >= sizeof address.sun_path)
    return fail(VIR_ERR_INTERNAL_ERROR, "control socket: name is too long");
  std::memcpy(address.sun_path, file.name.data(), file.name.size());
  // By its name in the directory, because the 108 bytes of an address are too few for a path (unix(7)).
  if (::fchdir(file.dir.get()) != 0) return sys_fail("control socket: enter its directory");
  ::unlink(address.sun_path);
  const mode_t mask = ::umask(0177);
  const int bound = ::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  const int err = errno;
  ::umask(mask);
  if (::chdir("/") != 0 || bound != 0) return sys_fail("bind control socket " + quote(file.name), err);
  if (::listen(listener.get(), 8) != 0) return sys_fail("listen on control socket");
  return listener;
}

Result<void> listen(const Host& host, Supervisor::Listeners& listeners) {
  listeners.controller = TRY(listen_at(host.socket));
  listeners.plugs = TRY(listen_at(host.plug));
  return {};
}

// No no_new_privs here: init would inherit it, and set-user-id programs in the container would stop working. The rest of
// what a controller denies itself follows when all that needs privileges has been forked (cage.h).
Result<void> make_own_session() {
  (void)::setsid();
  ::umask(077);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  ::prctl(PR_SET_NAME, kControllerName, 0, 0, 0);
  TRY(kernel::leave_session_keyring());
  // It comes by here again, as the root of a namespace of its own. Until then the files of its maps have to be the user's: a
  // newuidmap with file capabilities alone could not open them.
  if (::geteuid() != 0) return {};
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  return kernel::limit_privileges(privileges_of_controller());
}

bool has_overlay(const LaunchPlan& plan) {
  return std::any_of(plan.before.begin(), plan.before.end(),
                     [](const BeforeStep& step) { return std::holds_alternative<OverlaySourceStep>(step); });
}

Result<int> start(LaunchPlan plan, SocketFd& channel) {
  std::vector<Fd> files = take_files(plan);
  Host host;
  // What only overlays take is given up with the last of them.
  auto prepared = has_overlay(plan) ? Result<void>() : kernel::limit_privileges(privileges_of_stem());
  if (prepared) prepared = Host::prepare(plan, host);
  if (prepared) prepared = kernel::limit_privileges(privileges_of_stem());
  Supervisor::Listeners listeners;
  if (prepared) prepared = listen(host, listeners);
  if (!prepared) {
    auto error = std::move(prepared).error().with_context("start domain " + quote(plan.name));
    if (auto released = host.release(); !released) error.text += " (and clean up: " + released.error().text + ")";
    return error;
  }
  Supervisor supervisor(std::move(plan), std::move(host), std::move(files), std::move(channel), std::move(listeners));
  return supervisor.run();
}

int run(char* const* argv) {
  const auto ready = make_own_session();
  const auto bytes = read_plan_bytes();
  ::close(kPlanFd);
  if (bytes && bytes->empty()) return 0;  // the daemon has thought better of it, or is gone
  auto plan = bytes ? decode_plan(*bytes) : Result<LaunchPlan>(bytes.error());
  if (ready && plan && ::geteuid() != 0)
    plan = enter_outer_namespace(*plan, *bytes, argv).with_context("start domain " + quote(plan->name));
  SocketFd channel(kChannelFd);
  ::fcntl(kChannelFd, F_SETFD, FD_CLOEXEC);
  auto status = !ready ? Result<int>(ready.error())
                : plan ? start(std::move(plan).value(), channel)
                       : Result<int>(plan.error());
  if (status) return *status;
  (void)send_packet(kChannelFd, xdr::encode(FromController(Note(FailedNote{to_wire(status.error())}))));
  return 1;
}

Result<LaunchPlan> read_plan() { return decode_plan(TRY(read_plan_bytes())); }

int explain() {
  const auto plan = read_plan();
  const std::string text = plan ? describe(*plan) : plan.error().text + "\n";
  std::fputs(text.c_str(), plan ? stdout : stderr);
  return plan ? 0 : 1;
}

int reap_plan() {
  const auto plan = read_plan();
  const auto reaped = plan ? reap(*plan) : Result<void>(plan.error());
  if (!reaped) std::fprintf(stderr, "virtuserns-controller: reap: %s\n", reaped.error().text.c_str());
  return reaped ? 0 : 1;
}

Result<std::vector<MountFd>> open_for_daemon() {
  TRY(kernel::limit_privileges(privileges_of_stem()));
  auto ask = TRY(xdr::decode_exact<OpenAsk>(TRY(read_plan_bytes())));
  if (ask.version != kPlanVersion) return fail(VIR_ERR_INTERNAL_ERROR, "sources of another version");
  LaunchPlan plan;
  plan.host_uid = ask.host_uid;
  plan.host_gid = ask.host_gid;
  plan.from_parent.emplace_back(IdMapStep{std::move(ask.maps)});
  plan.before = std::move(ask.sources);
  return open_sources(plan);
}

int open_sources_of_plan() {
  const auto mounts = open_for_daemon();
  std::vector<int> files;
  if (mounts)
    for (const auto& mount : *mounts) files.push_back(mount.get());
  const OpenerAnswer answer = mounts ? OpenerAnswer(EmptyReply{}) : OpenerAnswer(to_wire(mounts.error()));
  return send_packet(kChannelFd, xdr::encode(answer), files) ? 0 : 1;
}

// What looking at strangers' processes takes, and no more.
constexpr std::uint64_t privileges_of_dump() {
  return capability_bit(CAP_SYS_PTRACE) |   // maps, descriptors
         capability_bit(CAP_SYS_ADMIN) |    // stacks in the kernel
         capability_bit(CAP_DAC_OVERRIDE);  // folders of a process that only its owner enters, the console's log
}

Result<void> dump_for_daemon() {
  if (::geteuid() == 0) TRY(kernel::limit_privileges(privileges_of_dump()));
  // What the domain holds up would wait for ever without a daemon that has a limit for it. After the privileges: a change of them undoes it.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return sys_fail("end with the daemon");
  const auto ask = TRY(xdr::decode_exact<DumpAsk>(TRY(read_plan_bytes())));
  if (ask.version != kPlanVersion) return fail(VIR_ERR_INTERNAL_ERROR, "a dump of another version");
  // It may have died before there was a death signal.
  if (static_cast<std::uint64_t>(::getppid()) != ask.daemon_pid)
    return fail(VIR_ERR_OPERATION_ABORTED, "the daemon that asked has ended");
  return dump(ask, Fd(::fcntl(kChannelFd, F_DUPFD_CLOEXEC, 0)));
}

int write_dump() {
  const auto dumped = dump_for_daemon();
  if (!dumped) std::fprintf(stderr, "virtuserns-controller: dump: %s\n", dumped.error().text.c_str());
  return dumped ? 0 : 1;
}

}  // namespace
}  // namespace virtuserns::controller

int main(int argc, char** argv) {
  using namespace virtuserns::controller;
  if (argc != 2 && argc != 3) {
    std::fputs(
        "usage: virtuserns-controller NAME [MARK] | --explain | --reap | --open | --dump   (the plan is read from descriptor 3)\n",
        stderr);
    return 2;
  }
  if (std::strcmp(argv[1], "--explain") == 0) return explain();
  if (std::strcmp(argv[1], "--reap") == 0) return reap_plan();
  if (std::strcmp(argv[1], "--open") == 0) return open_sources_of_plan();
  if (std::strcmp(argv[1], "--dump") == 0) return write_dump();
  return run(argv);
}
