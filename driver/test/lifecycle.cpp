// Starting and ending.
#include <libvirt/libvirt.h>

#include "conf/domain_devices.h"
#include "driver/test/driver.h"

namespace virtuserns::test_driver {
namespace {

constexpr unsigned kStartFlags = VIR_DOMAIN_START_PAUSED | VIR_DOMAIN_START_AUTODESTROY;

}  // namespace

Result<TestDriver::Owned> TestDriver::own(const Uuid& uuid) const {
  Job job = TRY(take_job(uuid));
  Locked domain = job.look();
  if (!domain->exists()) return no_domain_with_uuid(uuid);
  return Owned{std::move(job), std::move(domain)};
}

Result<TestDriver::Owned> TestDriver::own_active(const Uuid& uuid) const {
  Owned owned = TRY(own(uuid));
  TRY(require_active(*owned));
  return owned;
}

// What a start adds to the running definition only.
void TestDriver::assign_live_values_locked(TestDomain& domain) {
  DomainDef& def = domain.def;
  assign_aliases(def);
  for (InterfaceDef& link : def.interfaces) {
    if (link.target_dev.empty()) link.target_dev = "vnet" + std::to_string(next_link_++);
  }
  for (ConsoleDef& console : def.consoles) {
    // Looks like the path that libvirt shows; nothing is there. The console is reached through open_console.
    console.source_path = "/dev/pts/" + std::to_string(1000 + def.id);
    console.tty = console.source_path;
  }
}

void TestDriver::run_locked(TestDomain& domain, const Caller& caller, unsigned flags) {
  begin_running(domain, next_id_++, VIR_DOMAIN_RUNNING_BOOTED);
  assign_live_values_locked(domain);
  domain.ticks = 0;
  domain.autodestroy_by.reset();
  if (flags & VIR_DOMAIN_START_AUTODESTROY) domain.autodestroy_by = caller.connection_id;
  emit_lifecycle_locked(domain, VIR_DOMAIN_EVENT_STARTED, VIR_DOMAIN_EVENT_STARTED_BOOTED);
  if (flags & VIR_DOMAIN_START_PAUSED) {
    domain.set_state(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
    emit_lifecycle_locked(domain, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
  }
}

void TestDriver::restart_locked(TestDomain& domain) {
  domain.ticks = 0;
  domain.set_state(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_BOOTED);
  emit_locked(domain, RebootEvent{});
}

void TestDriver::end_locked(TestDomain& domain, int shutoff_reason, int stopped_detail) {
  domain.console.reset();
  domain.autodestroy_by.reset();
  const bool is_kept = end_running(domain, shutoff_reason);
  emit_lifecycle_locked(domain, VIR_DOMAIN_EVENT_STOPPED, stopped_detail);  // with id -1, as libvirt's has
  if (!is_kept) domains_.remove_locked(domain);
}

Result<DomainRef> TestDriver::create(const Caller& caller, const Uuid& uuid, std::vector<Fd> files, unsigned flags) {
  // A domain without processes has no use for descriptors: they are closed, as any init may do.
  files.clear();
  TRY(refuse_unknown_flags(flags, kStartFlags, "virDomainCreateWithFlags"));
  const Owned domain = TRY(own(uuid));
  if (domain->is_active()) return fail(VIR_ERR_OPERATION_INVALID, "Domain is already running");
  run_locked(*domain, caller, flags);
  return ref_of(*domain);
}

Result<DomainRef> TestDriver::create_transient(const Caller& caller, DomainDef def, std::vector<Fd> files,
                                               unsigned flags) {
  files.clear();
  TRY(refuse_unknown_flags(flags, kStartFlags | VIR_DOMAIN_START_VALIDATE, "virDomainCreateXML"));
  TRY(prepare(def));
  TRY(admit_definition(caller, def));
  const Job job = TRY(claim_for(caller, def));
  const Locked domain = job.look();
  TRY(assign_transient_def(*domain, std::move(def)));
  run_locked(*domain, caller, flags);
  return ref_of(*domain);
}

Result<void> TestDriver::shutdown(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_SHUTDOWN_INITCTL | VIR_DOMAIN_SHUTDOWN_SIGNAL,
                           "virDomainShutdownFlags"));
  const Owned domain = TRY(own_active(uuid));
  const bool is_restart = domain->def.on_poweroff == LifecycleAction::kRestart ||
                          domain->def.on_poweroff == LifecycleAction::kRenameRestart;
  if (is_restart) {
    restart_locked(*domain);
  } else {
    end_locked(*domain, VIR_DOMAIN_SHUTOFF_SHUTDOWN, VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
  }
  return {};
}

Result<void> TestDriver::reboot(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_REBOOT_INITCTL | VIR_DOMAIN_REBOOT_SIGNAL, "virDomainReboot"));
  const Owned domain = TRY(own_active(uuid));
  const bool is_restart =
      domain->def.on_reboot == LifecycleAction::kRestart || domain->def.on_reboot == LifecycleAction::kRenameRestart;
  if (is_restart) {
    restart_locked(*domain);
  } else {
    end_locked(*domain, VIR_DOMAIN_SHUTOFF_SHUTDOWN, VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
  }
  return {};
}

Result<void> TestDriver::reset(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainReset"));
  restart_locked(*TRY(own_active(uuid)));
  return {};
}

Result<void> TestDriver::destroy(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_DESTROY_GRACEFUL, "virDomainDestroyFlags"));
  const Owned domain = TRY(own_active(uuid));
  end_locked(*domain, VIR_DOMAIN_SHUTOFF_DESTROYED, VIR_DOMAIN_EVENT_STOPPED_DESTROYED);
  return {};
}

Result<void> TestDriver::suspend(const Caller&, const Uuid& uuid) {
  const Owned domain = TRY(own_active(uuid));
  if (domain->state == VIR_DOMAIN_PAUSED) return {};
  domain->set_state(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
  return {};
}

Result<void> TestDriver::resume(const Caller&, const Uuid& uuid) {
  const Owned domain = TRY(own_active(uuid));
  if (domain->state != VIR_DOMAIN_PAUSED) return fail(VIR_ERR_OPERATION_INVALID, "domain is already running");
  domain->set_state(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_UNPAUSED);
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_UNPAUSED);
  return {};
}

// The only process of a test domain is its init, which ends at the signals that end a process and nothing else.
Result<void> TestDriver::send_process_signal(const Caller&, const Uuid& uuid, std::int64_t pid, unsigned signal,
                                             unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainSendProcessSignal"));
  if (signal > VIR_DOMAIN_PROCESS_SIGNAL_RT32) {
    return fail(VIR_ERR_INVALID_ARG, "signum value " + std::to_string(signal) + " is out of range");
  }
  const Owned domain = TRY(own_active(uuid));
  if (pid != 1) return fail(VIR_ERR_ARGUMENT_UNSUPPORTED, "Only the init process may be killed");
  switch (signal) {
    case VIR_DOMAIN_PROCESS_SIGNAL_TERM:
    case VIR_DOMAIN_PROCESS_SIGNAL_INT:
      end_locked(*domain, VIR_DOMAIN_SHUTOFF_SHUTDOWN, VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
      break;
    case VIR_DOMAIN_PROCESS_SIGNAL_KILL:
    case VIR_DOMAIN_PROCESS_SIGNAL_ABRT:
    case VIR_DOMAIN_PROCESS_SIGNAL_SEGV:
      if (domain->def.on_crash == LifecycleAction::kRestart) {
        restart_locked(*domain);
      } else {
        end_locked(*domain, VIR_DOMAIN_SHUTOFF_CRASHED, VIR_DOMAIN_EVENT_STOPPED_CRASHED);
      }
      break;
    default:
      break;
  }
  return {};
}

}  // namespace virtuserns::test_driver
