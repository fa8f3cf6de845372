// What a daemon may ask of a running domain: one function per request.
#include <sched.h>

#include "conf/base/text.h"
#include "driver/controller/shutdown.h"
#include "driver/controller/supervise.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/link.h"
#include "driver/kernel/pidfd.h"
#include "driver/kernel/process.h"

namespace virtuserns::controller {

namespace {

constexpr std::int64_t kFreezeTimeoutMs = 10'000;

std::string format_mac(const std::vector<std::uint8_t>& bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const auto byte : bytes) {
    if (!text.empty()) text += ':';
    text += {kHex[byte >> 4], kHex[byte & 15]};
  }
  return text;
}

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
  if (auto done = freezer->set_frozen(request.freeze); !done) return reply(id, serial, done);
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
      if (pending.freeze && !freezer->is_v2()) (void)freezer->set_frozen(true);
      return false;
    }
    // Half frozen is no state to leave a container in.
    if (pending.freeze) (void)freezer->set_frozen(false);
    reply(pending.connection, pending.serial,
          fail(VIR_ERR_OPERATION_TIMEOUT, "some process of the domain does not freeze"));
    return true;
  });
}

// A pid inside is found among the processes of the groups by the kernel's own list of its numbers. The pidfd is opened
// before the numbers are read: what is then signalled is what was looked at.
Result<void> Supervisor::signal_inside(std::int32_t inside_pid, int signal) const {
  const auto& boot = *TRY(running());
  if (signal < 0 || signal > 64) return fail(VIR_ERR_INVALID_ARG, "there is no signal " + std::to_string(signal));
  if (inside_pid == 1) {
    if (signal != 0 && signal != SIGKILL && signal != SIGSTOP &&
        !is_handled(TRY(kernel::read_process_status(host_.proc, boot.record.init_pid)), signal))
      return fail(VIR_ERR_OPERATION_FAILED,
                  "init does not handle signal " + std::to_string(signal) + ", the kernel would drop it");
    return kernel::send_signal(boot.init, signal);
  }
  if (inside_pid < 1) return fail(VIR_ERR_INVALID_ARG, "process " + std::to_string(inside_pid) + " is no process");
  for (const auto& group : host_.groups) {
    for (const auto pid : TRY(group.processes())) {
      auto process = kernel::open_process(pid);
      const auto status = kernel::read_process_status(host_.proc, pid);
      if (!process || !status || status->ns_pids.size() < 2 || status->ns_pids[1] != inside_pid) continue;
      if (kernel::has_ended(*process)) continue;
      return kernel::send_signal(*process, signal);
    }
  }
  return fail(VIR_ERR_OPERATION_FAILED, "the domain has no process " + std::to_string(inside_pid));
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const SignalRequest& request) {
  reply(id, serial, signal_inside(request.inside_pid, request.signal));
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const ShutdownRequest& request) {
  const auto boot = running();
  if (!boot) return reply(id, serial, boot.error());
  const auto asked = ask_to_shut_down({host_.proc, (*boot)->init, (*boot)->record.init_pid}, request);
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
  std::vector<NsFd> namespaces;
  std::vector<int> files;
  for (const char* name : {"user", "ipc", "uts", "net", "pid", "mnt"}) {
    // Init is our child and not reaped: its number is its own.
    auto ns = kernel::open_namespace(host_.proc, (*boot)->record.init_pid, name);
    if (!ns) return reply(id, serial, ns.error());
    files.push_back(ns->get());
    namespaces.push_back(std::move(ns).value());
  }
  send(id, FromController(Reply{serial, EmptyReply{}}), files);
}

Result<void> Supervisor::write_groups(const CgroupWriteRequest& request) const {
  for (const auto& write : request.writes) {
    const auto* group = host_.find_group(write.controller);
    if (!group)
      return fail(VIR_ERR_OPERATION_INVALID, "the domain is in no group of controller " + quote(write.controller));
    if (write.file.empty() || write.file.find('/') != std::string::npos || write.file.front() == '.')
      return fail(VIR_ERR_INVALID_ARG, quote(write.file) + " is no file of a group");
    TRY(group->write(write.file, write.value));
  }
  return {};
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const CgroupWriteRequest& request) {
  reply(id, serial, write_groups(request));
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const PolicyRequest& request) {
  plan_.after_reboot = request.restart_on_reboot ? AfterExit::kRestart : AfterExit::kDestroy;
  reply(id, serial, {});
}

Result<AddressesReply> Supervisor::read_addresses() const {
  const auto& boot = *TRY(running());
  // A socket belongs to the namespace it was opened in. This thread is the only one, so a short visit is safe.
  TRY(kernel::enter_namespaces(boot.init, CLONE_NEWNET));
  auto route = kernel::RouteSocket::open();
  TRY(kernel::enter_namespace(host_.net_ns, CLONE_NEWNET), "come back");
  if (!route) return std::move(route).error();
  AddressesReply result;
  const auto addresses = TRY(kernel::list_addresses(*route));
  for (const auto& link : TRY(kernel::list_links(*route))) {
    AddressesReply::Link entry{printable(link.name), format_mac(link.mac), {}};
    for (const auto& address : addresses)
      if (address.link_index == link.index) entry.addresses.push_back({address.bytes, address.prefix});
    result.links.push_back(std::move(entry));
  }
  return result;
}

void Supervisor::handle(std::size_t id, std::uint32_t serial, const AddressesRequest&) {
  auto addresses = read_addresses();
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
  commands_.start({id, serial}, request.command, program, **boot);
}

}  // namespace virtuserns::controller
