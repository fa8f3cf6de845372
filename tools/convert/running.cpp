#include "tools/convert/running.h"

#include <libvirt/virterror.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "conf/base/loop.h"
#include "conf/base/text.h"
#include "tools/convert/connection.h"
#include "tools/convert/map_domain.h"
#include "xml/writer.h"

namespace virtuserns::convert {
namespace {

constexpr std::chrono::milliseconds kLookAgain{20};
constexpr std::uint64_t kAskAgainMs = 5000;
constexpr std::uint64_t kGoingOffMs = 2000;
constexpr unsigned kSnapshot =
    VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA | VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;

// All disks are named: those that are not would be moved too.
Result<std::string> make_snapshot_xml(const LiveMachine& live, const std::string& live_xml) {
  xml::Element disks("disks");
  for (const auto& disk : TRY(read_kvm_domain(live_xml)).disks) {
    const auto moved = std::find_if(live.disks.begin(), live.disks.end(),
                                    [&](const LiveDisk& known) { return known.target == disk.target; });
    xml::Element element("disk");
    element.attribute("name", disk.target);
    element.attribute("snapshot", moved == live.disks.end() ? "no" : "external");
    if (moved != live.disks.end()) {
      element.child(std::move(xml::Element("driver").attribute("type", "qcow2")));
      element.child(std::move(xml::Element("source").attribute("file", moved->overlay)));
    }
    disks.child(std::move(element));
  }
  return xml::Element("domainsnapshot").child(std::move(disks)).to_string();
}

bool has_agent(const Domain& domain) {
  long long seconds = 0;
  unsigned nanoseconds = 0;
  return ::virDomainGetTime(domain.get(), &seconds, &nanoseconds, 0) == 0;
}

// Asked again and again: a guest that is about to boot hears no button. One that has heard it ignores the next.
Result<bool> ask_until_off(const Domain& domain, const std::string& what, std::uint32_t limit_s) {
  const auto deadline = Loop::now_ms() + std::uint64_t{limit_s} * 1000;
  std::uint64_t ask_at = 0;
  std::optional<Error> refusal;
  for (auto now = Loop::now_ms(); now < deadline; now = Loop::now_ms()) {
    if (!TRY(is_active(domain))) return true;
    if (now >= ask_at && refusal) break;
    if (now >= ask_at) {
      const bool is_first = ask_at == 0;
      ask_at = now + kAskAgainMs;
      if (::virDomainShutdown(domain.get()) != 0 && is_first) {
        refusal = last_error("shut down " + what);
        // One that goes off by itself cannot be asked any more, and is called active for a moment yet.
        ask_at = now + kGoingOffMs;
      }
    }
    std::this_thread::sleep_for(kLookAgain);
  }
  if (!TRY(is_active(domain))) return true;
  return refusal ? Result<bool>(*refusal) : Result<bool>(false);
}

Error say_late(const std::string& what, std::uint32_t limit_s) {
  return fail(
      VIR_ERR_OPERATION_TIMEOUT,
      what + " is not off after " + std::to_string(limit_s) +
          " s, and goes on, unless it still does what it was asked; give it more, by --shutdown-limit, or end "
          "it, by --destroy");
}

Result<Domain> find_machine(const Connection& connection, const LiveMachine& live) {
  auto domain = TRY(find_domain(connection, live.uuid));
  if (!domain) return fail(VIR_ERR_NO_DOMAIN, "machine " + quote(live.name) + " is not there any more");
  return domain;
}

}  // namespace

Result<RunningMachine> read_running(const std::string& uri, const std::string& name) {
  RunningMachine machine{TRY(read_domain(uri, name)), ""};
  const std::string what = "domain " + quote(machine.domain.name);
  const auto connection = TRY(open_connection(uri));
  const auto domain = TRY(find_domain(connection, machine.domain.uuid));
  int state = VIR_DOMAIN_NOSTATE;
  if (!domain || ::virDomainGetState(domain.get(), &state, nullptr, 0) != 0) return last_error("look at " + what);
  if (state != VIR_DOMAIN_RUNNING)
    return fail(VIR_ERR_OPERATION_INVALID, what + " does not run; --live is for machines that do");
  if (::virDomainIsPersistent(domain.get()) != 1)
    return fail(VIR_ERR_OPERATION_INVALID,
                what + " is gone once it is off, and there would be no way back; define it");
  machine.live_xml = TRY(read_xml(domain, 0), what);
  return machine;
}

Result<bool> move_to_overlays(const LiveMachine& live) {
  const auto connection = TRY(open_connection(live.uri));
  const auto domain = TRY(find_machine(connection, live));
  const auto text = TRY(make_snapshot_xml(live, TRY(read_xml(domain, 0))));
  const auto take = [&](unsigned flags) {
    using Snapshot = std::unique_ptr<virDomainSnapshot, client::FreeHandle>;
    return Snapshot(::virDomainSnapshotCreateXML(domain.get(), text.c_str(), flags)) != nullptr;
  };
  // An agent that cannot freeze is no reason to stay: what is copied from this moment is gone over again at the end.
  if (has_agent(domain) && take(kSnapshot | VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE)) return true;
  if (!take(kSnapshot)) return last_error("take a snapshot of " + quote(live.name));
  return false;
}

Result<bool> runs_machine(const LiveMachine& live) {
  const auto connection = TRY(open_connection(live.uri));
  const auto domain = TRY(find_domain(connection, live.uuid));
  return domain ? is_active(domain) : Result<bool>(false);
}

Result<bool> shut_down(const LiveMachine& live, std::uint32_t limit_s, OnTimeout on_timeout) {
  const auto connection = TRY(open_connection(live.uri));
  const auto domain = TRY(find_machine(connection, live));
  const std::string what = "machine " + quote(live.name);
  const auto off = ask_until_off(domain, what, limit_s);
  const bool is_off = off && *off;
  if (!is_off && on_timeout == OnTimeout::kGiveUp) return off ? say_late(what, limit_s) : off.error();
  if (!is_off && ::virDomainDestroy(domain.get()) != 0) {
    const auto error = last_error("destroy " + what);
    if (TRY(is_active(domain))) return error;
  }
  for (const auto& disk : live.disks) TRY(await_jobs(domain, disk.target), what);
  int state = VIR_DOMAIN_NOSTATE, reason = 0;
  if (::virDomainGetState(domain.get(), &state, &reason, 0) != 0) return last_error("look at " + what);
  const bool is_saved = ::virDomainHasManagedSaveImage(domain.get(), 0) == 1;
  if (is_off && (is_saved || reason != VIR_DOMAIN_SHUTOFF_SHUTDOWN))
    return fail(VIR_ERR_OPERATION_FAILED, what + (is_saved ? " was saved" : " went off, and not by shutting down") +
                                              ": what it had in memory is not on its disks");
  return is_off;
}

}  // namespace virtuserns::convert
