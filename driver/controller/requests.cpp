// What a daemon may ask of a running domain: one function per request.
#include "driver/controller/supervise.h"

namespace virtuserns::controller {

namespace {

constexpr std::int64_t kFreezeTimeoutMs = 10'000;

}  // namespace

void Supervisor::handle(std::size_t id, const Request& request) {
  std::visit([&](const auto& body) { handle(id, request.serial, body); }, request.body);
}

Result<const Boot*> Supervisor::running() const {
  if (!boot_) return fail(VIR_ERR_OPERATION_INVALID, "the domain is between two boots");
  return &*boot_;
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const StatusRequest&) {
  forget_dead_daemons();
  StatusReply status;
  status.boot = last_boot_;
  if (!boot_) status.boot.init_pid = 0;
  // Asked of the kernel each time: somebody else may have frozen the group.
  if (const auto* freezer = host_.freezer())
    if (const auto state = freezer->freezer_state()) status.is_frozen = *state == kernel::FreezerState::kFrozen;
  status.last_sequence = sequence_;
  status.unacknowledged.assign(unacknowledged_.begin(), unacknowledged_.end());
  send(id, FromController(Reply{serial, status}));
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const AckRequest& request) {
  const auto is_seen = [&](const Note& note) {
    if (const auto* rebooted = std::get_if<RebootedNote>(&note)) return rebooted->sequence <= request.sequence;
    if (const auto* ended = std::get_if<EndedNote>(&note)) return ended->sequence <= request.sequence;
    return true;
  };
  while (!unacknowledged_.empty() && is_seen(unacknowledged_.front())) unacknowledged_.pop_front();
  reply(id, serial, {});
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const DestroyRequest&) {
  is_destroying_ = true;
  waiting_destroys_.emplace_back(id, serial);
  kill_init();  // the rest follows its death: on_init_exit, finish, reply
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const ResetRequest&) {
  is_resetting_ = true;
  waiting_resets_.emplace_back(id, serial);
  if (boot_) return kill_init();
  reboot_at_ms_ = -1;
  reboot();
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const FreezeRequest& request) {
  const auto* freezer = host_.freezer();
  if (!freezer)
    return reply(id, serial, fail(VIR_ERR_OPERATION_UNSUPPORTED, "the domain is in no group that can be frozen"));
  if (auto done = stem_.freeze(request.freeze); !done) return reply(id, serial, done);
  freezes_.push_back({id, serial, request.freeze, monotonic_ms() + kFreezeTimeoutMs});
  poll_freezes();
}

void Supervisor::poll_freezes() {
  const auto* freezer = host_.freezer();
  if (!freezer) return;
  const auto state = freezer->freezer_state();
  std::erase_if(freezes_, [&](const PendingFreeze& pending) {
    const auto wanted = pending.freeze ? kernel::FreezerState::kFrozen : kernel::FreezerState::kThawed;
    if (state && *state == wanted) {
      reply(pending.connection, pending.serial, {});
      return true;
    }
    if (state && monotonic_ms() < pending.deadline_ms) {
      // v1: a process that forked meanwhile stays FREEZING until the state is written again (freezer-subsystem.rst).
      if (pending.freeze && !freezer->is_v2()) (void)stem_.freeze(true);
      return false;
    }
    // Half frozen is no state to leave a container in.
    if (pending.freeze) (void)stem_.freeze(false);
    reply(pending.connection, pending.serial,
          state ? fail(VIR_ERR_OPERATION_TIMEOUT, "some process of the domain does not freeze") : state.error());
    return true;
  });
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const SignalRequest& request) {
  const auto boot = running();
  reply(id, serial, boot ? stem_.signal_inside(request.inside_pid, request.signal) : boot.error());
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const ShutdownRequest& request) {
  const auto boot = running();
  if (!boot) return reply(id, serial, boot.error());
  const auto asked = stem_.ask_to_shut_down(request);
  if (!asked) return reply(id, serial, asked.error());
  // An init that only knows how to end is booted again when it has.
  if (request.reboot && *asked == Asked::kToEnd) restart_once_ = true;
  reply(id, serial, {});
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const ConsoleRequest& request) {
  auto client = consoles_.attach(request.port, request.force);
  if (!client) return reply(id, serial, client.error());
  const int file = client->get();
  send(id, FromController(Reply{serial, EmptyReply{}}), std::span(&file, 1));
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const NamespacesRequest&) {
  const auto boot = running();
  if (!boot) return reply(id, serial, boot.error());
  const auto namespaces = stem_.namespaces();
  if (!namespaces) return reply(id, serial, namespaces.error());
  std::vector<int> files;
  for (const auto& ns : *namespaces) files.push_back(ns.get());
  send(id, FromController(Reply{serial, EmptyReply{}}), files);
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const CgroupWriteRequest& request) {
  reply(id, serial, stem_.write_groups(request));
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const PolicyRequest& request) {
  plan_.after_reboot = request.restart_on_reboot ? AfterExit::kRestart : AfterExit::kDestroy;
  reply(id, serial, {});
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const AddressesRequest&) {
  const auto boot = running();
  auto addresses = boot ? stem_.addresses() : Result<AddressesReply>(boot.error());
  if (!addresses) return reply(id, serial, addresses.error());
  send(id, FromController(Reply{serial, std::move(addresses).value()}));
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const ExecRequest& request) {
  const auto boot = running();
  if (!boot) return reply(id, serial, boot.error());
  if (auto valid = validate_exec(request.command); !valid) return reply(id, serial, valid);
  Fd program = request_files_.empty() ? Fd() : std::move(request_files_.front());
  if (program)
    if (auto valid = validate_program(program.get()); !valid) return reply(id, serial, valid);
  // It would wait in the frozen group, with nobody to say so. Asked of the kernel: somebody else may have frozen it.
  if (const auto* freezer = host_.freezer()) {
    const auto state = freezer->freezer_state();
    if (!freezes_.empty() || (state && *state != kernel::FreezerState::kThawed))
      return reply(id, serial,
                   fail(VIR_ERR_OPERATION_INVALID, "the domain is paused: nothing runs in it until it is resumed"));
  }
  commands_.start({id, serial}, request.command, program);
}

}  // namespace virtuserns::controller
