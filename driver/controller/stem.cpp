// The controller's end: one function for each thing that may be asked.
#include "driver/controller/stem.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "conf/base/text.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

constexpr std::size_t kMaxAnswerMemory = 4 * 1024 * 1024;

Error unexpected() { return fail(VIR_ERR_INTERNAL_ERROR, "unexpected answer of the domain's stem"); }

}  // namespace

Result<Stem> Stem::grow(LaunchPlan& plan, Host& host, const std::vector<Fd>& passed_files, const Boot& boot,
                        SocketFd plugs) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make socket pair");
  SocketFd ours(pair[0]);
  StemSockets sockets{SocketFd(pair[1]), std::move(plugs)};
  // Born with its name, so that nobody ever takes it for an init.
  ::prctl(PR_SET_NAME, kStemName, 0, 0, 0);
  auto forked = kernel::clone_process({0, nullptr, SIGCHLD});
  if (forked && forked->pid == 0) run_stem(plan, host, passed_files, boot, sockets);
  ::prctl(PR_SET_NAME, kControllerName, 0, 0, 0);
  auto cloned = TRY(std::move(forked), "clone stem");
  return Stem(std::move(ours), std::move(cloned.pidfd));
}

bool Stem::is_gone() const { return is_gone_ || (process_ && socket_ && kernel::has_ended(process_)); }

Result<void> Stem::tell(const StemAsk& request) const { return send_packet(socket_.get(), xdr::encode(request)); }

Result<Stem::Answer> Stem::receive() const {
  auto packet = recv_packet(socket_.get());
  // Whoever asks hears no; that the stem is gone the loop sees, and ends the domain.
  if (!packet || packet->bytes.empty()) {
    is_gone_ = true;
    return fail(VIR_ERR_OPERATION_FAILED, "the privileged part of the domain's controller is gone");
  }
  auto body = TRY(xdr::decode_exact<StemAnswer>(packet->bytes, kMaxAnswerMemory));
  if (auto* error = std::get_if<WireError>(&body)) return from_wire(std::move(*error));
  return Answer{std::move(body), std::move(packet->files)};
}

Result<Stem::Answer> Stem::ask(const StemAsk& request, std::span<const int> files) const {
  // A failure to send shows in the answer.
  (void)send_packet(socket_.get(), xdr::encode(request), files);
  return receive();
}

void Stem::tidy() const { (void)tell(TidyAsk{}); }

Result<Waiting> Stem::boot() const {
  auto answer = TRY(ask(BootAsk{}));
  auto* booted = std::get_if<Booted>(&answer.body);
  if (!booted || answer.files.size() != 3) return unexpected();
  Waiting waiting;
  waiting.boot.record = std::move(booted->record);
  waiting.gate = SocketFd(answer.files[0].release());
  waiting.boot.init = PidFd(answer.files[1].release());
  waiting.starter = PidFd(answer.files[2].release());
  auto& consoles = waiting.boot.consoles;
  while (consoles.size() < booted->consoles) {
    auto more = TRY(receive());
    if (more.files.empty()) return unexpected();
    for (auto& master : more.files) consoles.push_back({std::move(master)});
  }
  return waiting;
}

void Stem::kill() const { (void)tell(KillAsk{}); }

Result<void> Stem::freeze(bool is_frozen) const {
  (void)TRY(ask(FreezeAsk{is_frozen}));
  return {};
}

Result<void> Stem::signal_inside(std::int32_t inside_pid, int signal) const {
  (void)TRY(ask(SignalAsk{inside_pid, signal}));
  return {};
}

void Stem::signal_child(pid_t pid, int signal) const { (void)ask(SignalChildAsk{pid, signal, false}); }
void Stem::signal_group(pid_t leader, int signal) const { (void)ask(SignalChildAsk{leader, signal, true}); }

Result<Asked> Stem::ask_to_shut_down(const ShutdownRequest& request) const {
  const auto answer = TRY(ask(ShutDownAsk{request}));
  const auto* asked = std::get_if<ShutDownAsked>(&answer.body);
  if (!asked) return unexpected();
  return asked->is_to_end ? Asked::kToEnd : Asked::kForWhatWasWanted;
}

Result<std::vector<Fd>> Stem::namespaces() const { return TRY(ask(NamespacesAsk{})).files; }

Result<void> Stem::write_groups(const CgroupWriteRequest& request) const {
  (void)TRY(ask(WriteGroupsAsk{request}));
  return {};
}

Result<AddressesReply> Stem::addresses() const {
  auto answer = TRY(ask(AddressesAsk{}));
  auto* addresses = std::get_if<AddressesReply>(&answer.body);
  if (!addresses) return unexpected();
  return std::move(*addresses);
}

Result<Stem::Joiner> Stem::enter(const ExecDef& command, const Fd& program, const SocketFd& channel) const {
  const int files[] = {channel.get(), program.get()};
  auto answer = TRY(ask(EnterAsk{command}, std::span(files, program ? 2 : 1)));
  const auto* joined = std::get_if<Joined>(&answer.body);
  if (!joined || answer.files.size() != 1) return unexpected();
  return Joiner{joined->pid, PidFd(answer.files[0].release())};
}

Fd Stem::rotate_log(std::uint32_t console) const {
  auto answer = ask(RotateLogAsk{console});
  return answer && answer->files.size() == 1 ? std::move(answer->files[0]) : Fd();
}

Result<void> Stem::release(const ExitRecord& record) {
  const auto answer = ask(ReleaseAsk{record});
  socket_.reset();
  return answer ? Result<void>() : answer.error();
}

void Stem::await_end() const {
  if (process_) (void)kernel::wait_process(process_);
}

}  // namespace virtuserns::controller
