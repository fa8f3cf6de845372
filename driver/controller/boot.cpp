#include "driver/controller/boot.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/controller/confine.h"
#include "driver/controller/tree.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/pidfd.h"
#include "driver/kernel/process.h"

namespace virtuserns::controller {

namespace {

// A file system that never answers (FUSE, NFS) must not hold the controller for ever; nothing else here waits.
constexpr int kBootTimeoutMs = 60'000;

// Init is born into these two. The others it makes itself, while the controller builds its tree.
constexpr std::uint64_t kNamespaces = CLONE_NEWUSER | CLONE_NEWPID;

// How the starter gets into a v2 group. By birth, which is cheaper by a grace period. Kernel 6.18 kills a process at once
// that is born into a group with another count of cgroup.kill writes than its parent's group has; then by a write.
enum class IntoV2 { kByBirth, kByWrite };

struct Entry {
  std::vector<Fd> files;  // "0" is written into each
  const kernel::Cgroup* born_in = nullptr;
  const DirFd* host_proc = nullptr;
};

Result<Entry> open_groups(const Host& host, IntoV2 way) {
  Entry entry;
  entry.host_proc = &host.proc;
  for (const auto& group : host.groups) {
    if (group.is_v2() && way == IntoV2::kByBirth)
      entry.born_in = &group;
    else
      entry.files.push_back(TRY(group.open_tasks()));
  }
  return entry;
}

// The starter: still host root, one thread. Everything that only the host may do for the child happens here, then it
// takes the domain's own ids and only then makes the namespaces, which therefore belong to those ids.
Result<kernel::Cloned> start_init(const LaunchPlan& plan, const Entry& entry, InitEnds& ends,
                                  const std::vector<Fd>& passed_files) {
  TRY(apply_apparmor(plan, *entry.host_proc));
  // "0" is the writer itself: the kernel then moves one thread and skips the wait that a move by pid pays for.
  for (const auto& tasks : entry.files)
    if (::write(tasks.get(), "0", 1) != 1) return sys_fail("enter control group");
  // Groups first: without them gone, the caller's would be inside for ever (CVE-2022-2989). The map still allows
  // setgroups inside because host root writes it.
  if (::setgroups(0, nullptr) != 0) return sys_fail("drop groups");
  if (::setresgid(plan.host_gid, plan.host_gid, plan.host_gid) != 0)
    return sys_fail("take group id " + std::to_string(plan.host_gid));
  // CAP_SYS_ADMIN outlives the change of ids, because hosts may forbid user namespaces to the unprivileged
  // (kernel.unprivileged_userns_clone). The child has none of it: its capabilities are of its own namespace.
  if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return sys_fail("keep capabilities");
  if (::setresuid(plan.host_uid, plan.host_uid, plan.host_uid) != 0)
    return sys_fail("take user id " + std::to_string(plan.host_uid));
  TRY(kernel::limit_capabilities(std::uint64_t{1} << CAP_SYS_ADMIN));
  // CLONE_PARENT: the controller, not this short-lived process, is init's parent, waits for it, and its death signal
  // reaches init.
  auto cloned = kernel::clone_process({kNamespaces | CLONE_PARENT, nullptr});
  if (!cloned)
    return std::move(cloned).error().with_context(cloned.error().sys_errno == ENOSPC
                                                      ? "make namespaces: a limit in /proc/sys/user is reached"
                                                      : "make namespaces");
  if (cloned->pid == 0) run_init(plan, ends, passed_files);
  return std::move(*cloned);
}

[[noreturn]] void run_starter(const LaunchPlan& plan, const Entry& entry, InitEnds& ends,
                              const std::vector<Fd>& passed_files) {
  const auto init = start_init(plan, entry, ends, passed_files);
  const int file = init ? init->pidfd.get() : -1;
  const ChildMessage message = init ? ChildMessage(Born{init->pid}) : ChildMessage(to_wire(init.error()));
  (void)send_packet(ends.channel.get(), xdr::encode(message), std::span(&file, init ? 1 : 0));
  ::_exit(init ? 0 : 1);
}

// nullopt: the other side has closed, or `sender` ended without a word. (Others may hold that side open.)
Result<std::optional<ChildMessage>> receive(const SocketFd& channel, std::vector<Fd>* files = nullptr,
                                            const PidFd* sender = nullptr) {
  pollfd entries[] = {{channel.get(), POLLIN, 0}, {sender ? sender->get() : -1, POLLIN, 0}};
  int ready = 0;
  while ((ready = ::poll(entries, 2, kBootTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (ready > 0 && entries[0].revents == 0) return std::optional<ChildMessage>();
  if (ready == 0) return fail(VIR_ERR_OPERATION_TIMEOUT, "the child does not answer");
  auto packet = recv_packet(channel.get());
  // It ended before it had read all that it was told. What it said before comes after the news of that (unix(7)).
  if (!packet && packet.error().sys_errno == ECONNRESET) packet = recv_packet(channel.get());
  if (!packet && packet.error().sys_errno == ECONNRESET) return std::optional<ChildMessage>();
  if (!packet) return std::move(packet).error();
  if (packet->bytes.empty()) return std::optional<ChildMessage>();
  if (files) *files = std::move(packet->files);
  return std::optional<ChildMessage>(TRY(xdr::decode_exact<ChildMessage>(packet->bytes, 64 * 1024)));
}

std::string describe_status(int status) {
  if (WIFEXITED(status)) return "exited with status " + std::to_string(WEXITSTATUS(status));
  return "was killed by signal " + std::to_string(WTERMSIG(status));
}

// By SIGKILL. A limit below what a start takes lets the kernel kill whoever is in the group, and only the group's counters
// know why.
Error killed(const Host& host, const std::string& what) {
  const auto plain = fail(VIR_ERR_OPERATION_FAILED, what);
  const auto* group = host.find_group("memory");
  if (!group) return plain;
  const auto events = group->read(group->is_v2() ? "memory.events" : "memory.oom_control");
  const auto limit = group->read(group->is_v2() ? "memory.max" : "memory.limit_in_bytes");
  const auto at = events ? events->find("oom_kill ") : std::string::npos;
  if (at == std::string::npos || !limit || events->substr(at).starts_with("oom_kill 0")) return plain;
  const auto bytes = parse_number<std::uint64_t>(trim(*limit));
  return fail(VIR_ERR_OPERATION_FAILED,
              what + " for want of memory: the limit of " +
                  (bytes ? std::to_string(*bytes / 1024) + " KiB" : std::string(trim(*limit))) +
                  " is too low to start in; raise <memory> or <currentMemory>, or <hard_limit> of <memtune>");
}

// After the gate: AboutToExec and then the closing of the socket by exec (it is close-on-exec) is success. The listener.
Result<Fd> await_exec(const Host& host, const SocketFd& channel, const PidFd& init) {
  bool is_ready = false;
  std::vector<Fd> files;
  for (;;) {
    std::vector<Fd> received;
    auto message = TRY(receive(channel, &received));
    if (!received.empty()) files = std::move(received);
    if (!message && is_ready) return files.empty() ? Fd() : std::move(files.front());
    if (!message) {
      const auto status = TRY(kernel::wait_process(init, 1000));
      const std::string what =
          "init " + (status ? describe_status(*status) : std::string("vanished")) + " before exec";
      if (status && WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL) return killed(host, what);
      return fail(VIR_ERR_OPERATION_FAILED, what);
    }
    if (std::holds_alternative<AboutToExec>(*message))
      is_ready = true;
    else if (auto* error = std::get_if<WireError>(&*message))
      return from_wire(std::move(*error));
    else
      return fail(VIR_ERR_INTERNAL_ERROR, "unexpected message of the child");
  }
}

// Killed; and reaped, if it is a child of ours.
void end(PidFd& process) {
  if (!process) return;
  (void)kernel::send_signal(process, SIGKILL);
  (void)kernel::wait_process(process, kBootTimeoutMs);
  process.reset();
}

// nullopt: the starter was killed before it said anything.
Result<std::optional<std::pair<pid_t, PidFd>>> clone_init(const LaunchPlan& plan, const Entry& entry, Parent parent,
                                                          Waiting& waiting, const std::vector<Fd>& passed_files) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make socket pair");
  waiting.gate = SocketFd(pair[0]);
  InitEnds ends{SocketFd(pair[1]), {}};
  if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
  waiting.ready = Fd(pair[0]);
  ends.ready = Fd(pair[1]);
  auto starter = TRY(
      kernel::clone_process({static_cast<std::uint64_t>(parent), entry.born_in ? &entry.born_in->dir() : nullptr}),
      "clone starter");
  if (starter.pid == 0) {
    waiting.gate.reset();
    waiting.ready.reset();
    run_starter(plan, entry, ends, passed_files);
  }
  ends = {};
  waiting.starter = std::move(starter.pidfd);
  std::vector<Fd> files;
  auto message = TRY(receive(waiting.gate, &files, &waiting.starter));
  if (!message) return std::optional<std::pair<pid_t, PidFd>>();
  if (auto* error = std::get_if<WireError>(&*message)) return from_wire(std::move(*error));
  const auto* born = std::get_if<Born>(&*message);
  if (!born || files.size() != 1) return fail(VIR_ERR_INTERNAL_ERROR, "unexpected message of the starter");
  // Its pidfd is that of the clone: init may have ended, and been reaped, if it is not our child.
  return std::optional(std::pair(static_cast<pid_t>(born->pid), PidFd(files.front().release())));
}

Result<std::pair<pid_t, PidFd>> clone_init(const LaunchPlan& plan, const Host& host, Parent parent, Waiting& waiting,
                                           const std::vector<Fd>& passed_files) {
  for (const auto way : {IntoV2::kByBirth, IntoV2::kByWrite}) {
    const Entry entry = TRY(open_groups(host, way));
    end(waiting.starter);  // of the first try
    if (auto born = TRY(clone_init(plan, entry, parent, waiting, passed_files))) return std::move(*born);
  }
  return killed(host, "the starter was killed");
}

// That it is not there to hear it shows in what it has said.
void tell(const SocketFd& gate, GoOn what) {
  (void)send_packet(gate.get(), xdr::encode(static_cast<std::uint32_t>(what)));
}

// What fails on our side may only be the consequence of its end.
std::optional<Error> why_init_ended(const Host& host, const Waiting& waiting) {
  pollfd said{waiting.gate.get(), POLLIN, 0};
  if (::poll(&said, 1, 0) > 0)
    if (auto message = receive(waiting.gate); message && *message)
      if (auto* error = std::get_if<WireError>(&**message)) return from_wire(std::move(*error));
  if (kernel::has_ended(waiting.boot.init)) return killed(host, "init was killed before exec");
  return std::nullopt;
}

}  // namespace

WireError to_wire(const Error& error) { return {error.code, error.sys_errno, error.text.substr(0, kMaxErrorText)}; }
Error from_wire(WireError error) { return Error{error.code, error.sys_errno, std::move(error.text)}; }

Result<Waiting> begin_boot(const LaunchPlan& plan, const Host& host, const std::vector<Fd>& passed_files,
                           Parent parent) {
  Tree::clear();
  Waiting waiting;
  Undo undo;
  undo.add([&] { abandon(waiting); });
  auto [pid, init] = TRY(clone_init(plan, host, parent, waiting, passed_files), "clone init");
  waiting.boot.init = std::move(init);
  waiting.boot.record.init_pid = pid;
  if (const auto time = kernel::read_start_time(host.proc, pid)) waiting.boot.record.init_start_time = *time;
  const NsFd user_ns = TRY(kernel::open_namespace(host.proc, pid, "user"));
  if (const uid_t owner = TRY(kernel::owner_of_user_namespace(user_ns)); owner != plan.host_uid)
    return fail(VIR_ERR_INTERNAL_ERROR, "user namespace belongs to " + std::to_string(owner) + " instead of " +
                                            std::to_string(plan.host_uid));
  const auto applied = apply_from_parent(plan, host, {pid, waiting.boot.init, waiting.ready}, waiting.boot);
  if (!applied) return why_init_ended(host, waiting).value_or(applied.error());
  waiting.ready.reset();
  tell(waiting.gate, GoOn::kGateIsOpen);
  undo.commit();
  return waiting;
}

void abandon(Waiting& waiting) {
  end(waiting.boot.init);
  end(waiting.starter);
  Tree::clear();
}

Result<Boot> open_gate(const Host& host, Waiting waiting) {
  auto& boot = waiting.boot;
  tell(waiting.gate, GoOn::kExec);
  auto refusals = await_exec(host, waiting.gate, boot.init);
  if (waiting.starter) (void)kernel::wait_process(waiting.starter);  // it had nothing left to do
  boot.refusals = TRY(std::move(refusals));
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  boot.record.time_ms =
      static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
  return std::move(boot);
}

}  // namespace virtuserns::controller
