#include "driver/controller/commands.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "conf/base/text.h"
#include "driver/kernel/pidfd.h"
#include "driver/kernel/process.h"

namespace virtuserns::controller {

namespace {

// A file system of the container that never answers holds the start; nothing else in it waits.
constexpr std::int64_t kStartTimeoutMs = 20'000;
constexpr std::int64_t kHangUpMs = 3'000;  // from SIGHUP to SIGKILL
constexpr std::size_t kMaxChildMessage = 64 * 1024;
constexpr std::uint32_t kIdMask = 0x3fffffff;

struct SocketPair {
  SocketFd ours, theirs;
};
Result<SocketPair> make_pair() {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make socket pair");
  ::fcntl(pair[0], F_SETFL, O_NONBLOCK);
  return SocketPair{SocketFd(pair[0]), SocketFd(pair[1])};
}

}  // namespace

void Commands::watch(const Fd& fd, std::uint32_t id, Part part) const {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = event_tag(EventKind::kCommand, id << 2 | static_cast<std::uint32_t>(part));
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event);
}

// Out of the epoll by name: a fork of ours may still have the descriptor, and closing would not do it.
void Commands::drop(Fd& fd) const {
  if (fd) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
  fd.reset();
}

void Commands::start(const Asker& asker, const ExecDef& command, const Fd& program) {
  if (commands_.size() >= kMaxCommands)
    return answer_(asker,
                   fail(VIR_ERR_RESOURCE_BUSY,
                        "the domain runs " + std::to_string(kMaxCommands) + " commands already; wait for one to end"),
                   {});
  while (commands_.contains(next_id_)) next_id_ = (next_id_ + 1) & kIdMask;
  const auto id = next_id_;
  next_id_ = (next_id_ + 1) & kIdMask;
  auto& entry = commands_[id];
  entry.asker = asker;
  if (auto begun = begin(id, entry, command, program); !begun) fail_start(entry, std::move(begun).error());
  forget_if_over(id);
}

Result<void> Commands::begin(std::uint32_t id, Command& command, const ExecDef& def, const Fd& program) {
  auto [ours, theirs] = TRY(make_pair());
  command.joiner = TRY(stem_.enter(def, program, theirs));
  command.channel = std::move(ours);
  command.deadline_ms = monotonic_ms() + kStartTimeoutMs;
  watch(command.joiner.process, id, Part::kJoiner);
  watch(command.channel, id, Part::kChannel);
  return {};
}

void Commands::on_event(std::size_t index) {
  const auto id = static_cast<std::uint32_t>(index) >> 2;
  const auto found = commands_.find(id);
  if (found == commands_.end()) return;
  auto& command = found->second;
  switch (static_cast<Part>(index & 3)) {
    case Part::kChannel:
      on_channel(id, command);
      break;
    case Part::kJoiner:
      if (command.joiner.process && kernel::has_ended(command.joiner.process)) {
        (void)kernel::wait_process(command.joiner.process, 0);
        drop(command.joiner.process);
      }
      break;
    case Part::kProcess:
      on_process(command);
      break;
    case Part::kClient:
      on_client(command);
      break;
  }
  forget_if_over(id);
}

void Commands::on_channel(std::uint32_t id, Command& command) {
  while (command.channel) {
    auto packet = recv_packet(command.channel.get());
    if (!packet && packet.error().sys_errno == EAGAIN) return;
    if (packet && !packet->bytes.empty() && on_message(id, command, std::move(*packet))) continue;
    drop(command.channel);
    if (command.is_answered) return;
    if (command.is_about_to_exec) return on_exec(id, command);
    fail_start(command, fail(VIR_ERR_OPERATION_FAILED, "the command was killed before it ran"));
  }
}

// False: nothing more is expected.
bool Commands::on_message(std::uint32_t id, Command& command, Packet packet) {
  auto message = xdr::decode_exact<ChildMessage>(packet.bytes, kMaxChildMessage);
  if (!message) {
    fail_start(command, std::move(message).error());
    return false;
  }
  if (const auto* entered = std::get_if<Entered>(&*message); entered && !packet.files.empty() && !command.process) {
    command.pid = entered->pid;
    command.process = PidFd(packet.files.front().release());
    packet.files.erase(packet.files.begin());
    command.files = std::move(packet.files);
    watch(command.process, id, Part::kProcess);
    if (command.is_answered) kill_now(command);  // given up meanwhile
    return true;
  }
  if (std::holds_alternative<AboutToExec>(*message)) {
    command.is_about_to_exec = true;
    return true;
  }
  if (auto* error = std::get_if<WireError>(&*message))
    fail_start(command, from_wire(std::move(*error)));
  else if (auto* not_run = std::get_if<NotRun>(&*message))
    fail_start(command, ExecReply{not_run->status, printable(not_run->text, kMaxErrorText)});
  else
    fail_start(command, fail(VIR_ERR_INTERNAL_ERROR, "unexpected message of the child"));
  return false;
}

void Commands::answer(Command& command, const Result<ExecReply>& reply, std::span<const int> files) {
  if (command.is_answered) return;
  command.is_answered = true;
  command.deadline_ms = -1;
  answer_(command.asker, reply, files);
}

void Commands::fail_start(Command& command, const Result<ExecReply>& reply) {
  kill_now(command);
  command.files.clear();
  answer(command, reply);
}

// The channel was closed by exec: it runs, or has even ended.
void Commands::on_exec(std::uint32_t id, Command& command) {
  auto pair = make_pair();
  if (!pair) return fail_start(command, std::move(pair).error());
  command.client = std::move(pair->ours);
  watch(command.client, id, Part::kClient);
  command.is_running = true;
  std::vector<int> files = {pair->theirs.get()};
  for (const auto& file : command.files) files.push_back(file.get());
  // Before the status, so that the status does not wait for a reader of the reply.
  answer(command, ExecReply{}, files);
  command.files.clear();
  if (command.status) tell_end(command);
}

void Commands::on_process(Command& command) {
  if (!command.process || command.status) return;
  const auto waited = kernel::wait_process(command.process, 0);
  if (waited && !*waited) return;
  command.status = waited ? **waited : 0;
  // At once: init cannot end while a process of its pid namespace is not reaped.
  drop(command.process);
  if (command.is_running) tell_end(command);
}

void Commands::tell_end(Command& command) {
  if (command.client) (void)send_packet(command.client.get(), xdr::encode(ExecEnded{*command.status}));
  drop(command.client);
}

void Commands::on_client(Command& command) {
  if (!command.client) return;
  const auto packet = recv_packet(command.client.get());
  if (!packet && packet.error().sys_errno == EAGAIN) return;
  if (!packet || packet->bytes.empty() || packet->bytes.size() > kMaxExecMessage) return hang_up(command);
  const auto message = xdr::decode_exact<ExecSignal>(packet->bytes, kMaxExecMessage);
  if (!message || message->signal < 1 || message->signal > 64) return hang_up(command);
  signal_group(command, message->signal);
}

// Whoever asked has gone.
void Commands::hang_up(Command& command) {
  drop(command.client);
  signal_group(command, SIGHUP);
  signal_group(command, SIGCONT);  // one that is stopped would not hear the other
  command.deadline_ms = monotonic_ms() + kHangUpMs;
}

// It is the leader of its session and cannot leave its group, and while it is not reaped the number is its own.
void Commands::signal_group(const Command& command, int signal) const {
  if (command.process && command.is_running) stem_.signal_group(command.pid, signal);
}

void Commands::kill_now(Command& command) const {
  signal_group(command, SIGKILL);
  if (command.joiner.process) stem_.signal_child(command.joiner.pid, SIGKILL);
  if (command.process) stem_.signal_child(command.pid, SIGKILL);
}

std::int64_t Commands::next_deadline_ms() const {
  std::int64_t next = -1;
  for (const auto& [id, command] : commands_)
    if (command.deadline_ms >= 0 && (next < 0 || command.deadline_ms < next)) next = command.deadline_ms;
  return next;
}

void Commands::on_time(std::int64_t now_ms) {
  for (auto& [id, command] : commands_) {
    if (command.deadline_ms < 0 || command.deadline_ms > now_ms) continue;
    command.deadline_ms = -1;
    if (command.is_running)
      kill_now(command);
    else
      fail_start(command, fail(VIR_ERR_OPERATION_TIMEOUT,
                               "the command does not start; does a file system of the domain not answer?"));
  }
}

void Commands::end_all() {
  for (auto& [id, command] : commands_) {
    kill_now(command);
    on_process(command);
    fail_start(command, fail(VIR_ERR_OPERATION_FAILED, "the domain ended"));
    // One that had not come in yet is not killed by the namespace's end.
    if (command.joiner.process) (void)kernel::wait_process(command.joiner.process, 1000);
    drop(command.joiner.process);
    drop(command.process);
    drop(command.channel);
    drop(command.client);
  }
  commands_.clear();
}

void Commands::forget_if_over(std::uint32_t id) {
  const auto found = commands_.find(id);
  if (found == commands_.end()) return;
  const auto& command = found->second;
  if (!command.is_answered || command.joiner.process || command.process || command.channel) return;
  drop(found->second.client);
  commands_.erase(found);
  if (commands_.empty()) kernel::shrink_heap();  // an idle controller is to stay small
}

}  // namespace virtuserns::controller
