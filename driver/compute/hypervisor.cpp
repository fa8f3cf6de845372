#include "driver/compute/hypervisor.h"

#include <libvirt/virterror.h>

#include <algorithm>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

using client::Domain;
using client::last_error;
using std::chrono::steady_clock;

constexpr auto kPauseBetweenTries = std::chrono::milliseconds(100), kPauseOfKeeper = std::chrono::milliseconds(500);
constexpr auto kEndOfKeeper = std::chrono::seconds(2);
constexpr auto kPoll = std::chrono::milliseconds(50);
constexpr std::size_t kMostIdle = 4;  // connections that are kept for the next call
constexpr int kKeepaliveSeconds = 5, kKeepaliveCount = 6;
constexpr int kEventTickMs = 200;  // how long the loop of events may overlook that it is to end

PowerState state_of(int state) {
  switch (state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
    case VIR_DOMAIN_SHUTDOWN:
      return PowerState::kRunning;
    case VIR_DOMAIN_PAUSED:
    case VIR_DOMAIN_PMSUSPENDED:
      return PowerState::kPaused;
    case VIR_DOMAIN_SHUTOFF:
      return PowerState::kShutdown;
    case VIR_DOMAIN_CRASHED:
      return PowerState::kCrashed;
    default:
      return PowerState::kNone;
  }
}

Result<DomainFacts> ask_facts(const Domain& domain) {
  virDomainInfo info{};
  if (::virDomainGetInfo(domain.get(), &info) != 0) return last_error("ask for the state of a domain");
  const auto id = ::virDomainGetID(domain.get());
  return DomainFacts{state_of(info.state), info.maxMem,    info.memory,
                     info.cpuTime,         info.nrVirtCpu, id == ~0u ? -1 : static_cast<int>(id)};
}

Result<std::string> uuid_of(virDomainPtr domain) {
  char uuid[VIR_UUID_STRING_BUFLEN];
  if (::virDomainGetUUIDString(domain, uuid) != 0) return last_error("ask for an uuid");
  return std::string(uuid);
}

bool is_off(const DomainFacts& facts) {
  return facts.state == PowerState::kShutdown || facts.state == PowerState::kCrashed;
}

bool is_alive(const std::shared_ptr<virConnect>& connection) { return ::virConnectIsAlive(connection.get()) == 1; }

// The default loop of events of libvirt's library is one for the process.
void start_event_loop() {
  static std::once_flag once;
  std::call_once(once, [] {
    ::virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
    if (::virEventRegisterDefaultImpl() != 0) log_error("compute", "libvirt has no loop of events");
  });
}

std::string_view name_of_event(int event, int detail) {
  switch (event) {
    case VIR_DOMAIN_EVENT_STARTED:
      return "started";
    case VIR_DOMAIN_EVENT_SUSPENDED:
      return "paused";
    case VIR_DOMAIN_EVENT_RESUMED:
      return "resumed";
    case VIR_DOMAIN_EVENT_STOPPED:
      return detail == VIR_DOMAIN_EVENT_STOPPED_CRASHED ? "crashed" : "stopped";
    case VIR_DOMAIN_EVENT_CRASHED:
      return "crashed";
    default:
      return "";
  }
}

}  // namespace

Hypervisor::Hypervisor(std::string uri, std::chrono::milliseconds patience,
                       std::function<void(const DomainEvent&)> on_event)
    : uri_(std::move(uri)), patience_(patience), on_event_(std::move(on_event)) {
  start_event_loop();
  events_ = std::thread([this] {
    const int tick = ::virEventAddTimeout(
        kEventTickMs, [](int, void*) {}, nullptr, nullptr);
    while (!stops_events_) (void)::virEventRunDefaultImpl();
    (void)::virEventRemoveTimeout(tick);
  });
  keeper_ = std::thread([this] { keep_connected(); });
}

Hypervisor::~Hypervisor() {
  {
    std::unique_lock lock(mutex_);
    is_ending_ = true;
    changed_.notify_all();
    // A daemon that was stopped may hold the keeper in the library for ever; there is no way to take a thread back from it, and
    // nothing is left to be done.
    if (!changed_.wait_for(lock, kEndOfKeeper, [&] { return has_keeper_ended_; })) std::_Exit(0);
  }
  keeper_.join();
  idle_.clear();
  spent_.clear();
  connection_.reset();
  stops_events_ = true;
  events_.join();
}

Result<Hypervisor::Shared> Hypervisor::open(bool has_events) {
  auto opened = TRY(client::open_connection(uri_));
  (void)::virConnectSetKeepAlive(opened.get(), kKeepaliveSeconds, kKeepaliveCount);
  if (!has_events) return Shared(std::move(opened));
  (void)::virConnectDomainEventRegisterAny(opened.get(), nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                           VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), this, nullptr);
  (void)::virConnectDomainEventRegisterAny(opened.get(), nullptr, VIR_DOMAIN_EVENT_ID_REBOOT,
                                           VIR_DOMAIN_EVENT_CALLBACK(on_reboot), this, nullptr);
  (void)::virConnectRegisterCloseCallback(opened.get(), on_close, this, nullptr);
  // The callback holds the connection.
  return Shared(opened.release(), [](virConnectPtr connection) {
    (void)::virConnectUnregisterCloseCallback(connection, on_close);
    (void)::virConnectClose(connection);
  });
}

// The keeper alone opens connections, since that may take as long as it likes.
//
// No two threads use one at the same time: the one that reads the socket is woken by g_main_loop_quit() when another has something to be
// sent, and in libvirt 9.0 that is lost when it comes before g_main_loop_run(). The call then waits for whatever comes next on the
// connection, 5 s for a sign of life, or for ever without those.
Result<Hypervisor::Shared> Hypervisor::borrow(steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  ++wanted_;
  changed_.notify_all();
  const bool is_there = changed_.wait_until(lock, deadline, [&] { return find_live_locked() || is_ending_; });
  --wanted_;
  if (is_there && !idle_.empty()) {
    auto found = std::move(idle_.back());
    idle_.pop_back();
    const auto raw = found.get();
    return Shared(raw, [this, found = std::move(found)](virConnectPtr) mutable { give_back(std::move(found)); });
  }
  return Error{
      kUnavailable, 0,
      (why_not_.empty() ? "connect to " + quote(uri_) + ": no answer" : why_not_) + "; is its daemon running?"};
}

void Hypervisor::give_back(Shared connection) {
  const std::lock_guard lock(mutex_);
  (is_alive(connection) ? idle_ : spent_).push_back(std::move(connection));
  changed_.notify_all();
}

// Whether an idle one lives; it is the last of them then.
bool Hypervisor::find_live_locked() {
  while (!idle_.empty() && !is_alive(idle_.back())) {
    spent_.push_back(std::move(idle_.back()));
    idle_.pop_back();
  }
  return !idle_.empty();
}

// Those that are dead, and those that there are too many of.
std::vector<Hypervisor::Shared> Hypervisor::take_spent_locked() {
  if (connection_ && !is_alive(connection_)) spent_.push_back(std::exchange(connection_, nullptr));
  (void)find_live_locked();
  // The one that is told events is the last to go.
  if (const auto told = std::find(idle_.begin(), idle_.end(), connection_); told != idle_.end())
    std::rotate(told, told + 1, idle_.end());
  while (idle_.size() > kMostIdle + wanted_) {
    spent_.push_back(std::move(idle_.front()));
    idle_.erase(idle_.begin());
  }
  return std::exchange(spent_, {});
}

// So that events come also while nobody asks anything.
void Hypervisor::keep_connected() {
  std::unique_lock lock(mutex_);
  while (!is_ending_) {
    if (auto spent = take_spent_locked(); !spent.empty()) {
      lock.unlock();
      spent.clear();  // which asks the daemon, and waits for it
      lock.lock();
      continue;
    }
    if (!is_short_locked()) {
      changed_.wait_for(lock, kPauseOfKeeper, [&] { return is_ending_ || is_short_locked(); });
      continue;
    }
    const bool has_events = !connection_;
    lock.unlock();
    auto opened = open(has_events);
    lock.lock();
    why_not_ = opened ? "" : opened.error().text;
    if (!opened) {
      changed_.wait_for(lock, kPauseBetweenTries, [&] { return is_ending_; });
      continue;
    }
    idle_.push_back(*opened);
    changed_.notify_all();
    if (!has_events) continue;
    connection_ = *opened;
    if (was_connected_) tell({"", "lost"});
    was_connected_ = true;
  }
  has_keeper_ended_ = true;
  changed_.notify_all();
}

void Hypervisor::tell(const DomainEvent& event) { on_event_(event); }

void Hypervisor::count_reboot(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  for (auto& [waiting, count] : reboots_)
    if (waiting == uuid) ++count;
  changed_.notify_all();
}

void Hypervisor::on_lifecycle(virConnectPtr, virDomainPtr domain, int event, int detail, void* self) {
  const auto name = name_of_event(event, detail);
  const auto uuid = uuid_of(domain);
  if (!name.empty() && uuid) static_cast<Hypervisor*>(self)->tell({*uuid, name});
}

void Hypervisor::on_reboot(virConnectPtr, virDomainPtr domain, void* self) {
  const auto uuid = uuid_of(domain);
  if (!uuid) return;
  static_cast<Hypervisor*>(self)->count_reboot(*uuid);
  static_cast<Hypervisor*>(self)->tell({*uuid, "rebooted"});
}

void Hypervisor::on_close(virConnectPtr, int, void* self) {
  auto& hypervisor = *static_cast<Hypervisor*>(self);
  hypervisor.changed_.notify_all();  // the keeper sees that it is dead
}

Result<std::string> Hypervisor::capabilities() {
  return run([](virConnectPtr connection) -> Result<std::string> {
    const std::unique_ptr<char, decltype(&::free)> text(::virConnectGetCapabilities(connection), &::free);
    if (!text) return last_error("ask for the hypervisor's capabilities");
    return std::string(text.get());
  });
}

Result<std::vector<ListedDomain>> Hypervisor::list() {
  return run([](virConnectPtr connection) -> Result<std::vector<ListedDomain>> {
    virDomainPtr* found = nullptr;
    const int count = ::virConnectListAllDomains(connection, &found, 0);
    if (count < 0) return last_error("list the domains");
    std::vector<Domain> domains;
    for (int i = 0; i < count; ++i) domains.emplace_back(found[i]);
    std::free(found);
    std::vector<ListedDomain> all;
    for (const auto& domain : domains) {
      const auto facts = ask_facts(domain);
      // One that has been undefined since is none.
      if (!facts) continue;
      all.push_back({TRY(uuid_of(domain.get())), ::virDomainGetName(domain.get()), facts->state});
    }
    return all;
  });
}

Result<DomainFacts> Hypervisor::facts(const std::string& uuid) {
  return run_on(uuid, [](Domain domain) { return ask_facts(domain); });
}

Result<std::string> Hypervisor::xml(const std::string& uuid, unsigned flags) {
  return run_on(uuid, [&](Domain domain) { return client::read_xml(domain, flags); });
}

Result<void> Hypervisor::define(const std::string& xml) {
  return run([&](virConnectPtr connection) -> Result<void> {
    const Domain domain(::virDomainDefineXML(connection, xml.c_str()));
    if (!domain) return last_error("define the domain");
    return {};
  });
}

Result<void> Hypervisor::ensure_undefined(const std::string& uuid) {
  return run([&](virConnectPtr connection) -> Result<void> {
    const auto domain = TRY(client::find_domain(connection, uuid));
    if (!domain || ::virDomainUndefine(domain.get()) == 0 || ::virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) return {};
    return last_error("undefine the domain");
  });
}

Result<void> Hypervisor::ensure_running(const std::string& uuid) {
  return run_on(uuid, [](Domain domain) -> Result<void> {
    if (!is_off(TRY(ask_facts(domain))) || ::virDomainCreate(domain.get()) == 0) return {};
    const auto error = last_error("start the domain");
    // Somebody else was faster, or an answer was lost.
    if (const auto facts = ask_facts(domain); facts && !is_off(*facts)) return {};
    return error;
  });
}

Result<void> Hypervisor::ensure_off(const std::string& uuid) {
  return run([&](virConnectPtr connection) -> Result<void> {
    const auto domain = TRY(client::find_domain(connection, uuid));
    if (!domain || is_off(TRY(ask_facts(domain))) || ::virDomainDestroy(domain.get()) == 0) return {};
    const auto error = last_error("end the domain");
    if (error.code == VIR_ERR_NO_DOMAIN) return {};
    if (const auto facts = ask_facts(domain); facts && is_off(*facts)) return {};
    return error;
  });
}

Result<void> Hypervisor::shut_down(const std::string& uuid, std::chrono::seconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  if (timeout.count() > 0) {
    const auto asked = run_on(uuid, [](Domain domain) -> Result<void> {
      // A frozen guest hears nothing.
      if (TRY(ask_facts(domain)).state != PowerState::kRunning || ::virDomainShutdown(domain.get()) == 0) return {};
      return last_error("ask the guest to shut down");
    });
    if (!asked && asked.error().code == kUnavailable) return asked;
    while (asked && steady_clock::now() < deadline) {
      const auto now = facts(uuid);
      if (!now && now.error().code == VIR_ERR_NO_DOMAIN) return {};
      if (TRY(facts(uuid)).state != PowerState::kRunning) break;
      std::this_thread::sleep_for(kPoll);
    }
  }
  return ensure_off(uuid);
}

Result<bool> Hypervisor::reboot(const std::string& uuid, std::chrono::seconds timeout) {
  std::unique_lock lock(mutex_);
  reboots_.emplace_back(uuid, 0);
  const auto mine = [&] {
    return std::find_if(reboots_.begin(), reboots_.end(), [&](const auto& each) { return each.first == uuid; });
  };
  lock.unlock();
  const auto asked = run_on(uuid, [](Domain domain) -> Result<void> {
    if (::virDomainReboot(domain.get(), 0) != 0) return last_error("ask the guest to reboot");
    return {};
  });
  lock.lock();
  if (asked) changed_.wait_for(lock, timeout, [&] { return mine()->second > 0 || is_ending_; });
  const bool has_done_it = mine()->second > 0;
  reboots_.erase(mine());
  if (!asked && asked.error().code == kUnavailable) return asked.error();
  return has_done_it;
}

Result<void> Hypervisor::ensure_paused(const std::string& uuid) {
  return run_on(uuid, [](Domain domain) -> Result<void> {
    if (TRY(ask_facts(domain)).state == PowerState::kPaused || ::virDomainSuspend(domain.get()) == 0) return {};
    return last_error("pause the domain");
  });
}

Result<void> Hypervisor::ensure_resumed(const std::string& uuid) {
  return run_on(uuid, [](Domain domain) -> Result<void> {
    if (TRY(ask_facts(domain)).state == PowerState::kRunning || ::virDomainResume(domain.get()) == 0) return {};
    return last_error("resume the domain");
  });
}

Result<void> Hypervisor::attach(const std::string& uuid, const std::string& device_xml, unsigned flags) {
  return run_on(uuid, [&](Domain domain) -> Result<void> {
    if (::virDomainAttachDeviceFlags(domain.get(), device_xml.c_str(), flags) != 0)
      return last_error("attach the device");
    return {};
  });
}

Result<void> Hypervisor::dump(const std::string& uuid, const std::string& path, unsigned flags) {
  return run_on(uuid, [&](Domain domain) -> Result<void> {
    if (::virDomainCoreDump(domain.get(), path.c_str(), flags) != 0) return last_error("dump the domain");
    return {};
  });
}

Result<void> Hypervisor::detach(const std::string& uuid, const std::string& device_xml, unsigned flags) {
  return run_on(uuid, [&](Domain domain) -> Result<void> {
    if (::virDomainDetachDeviceFlags(domain.get(), device_xml.c_str(), flags) != 0)
      return last_error("detach the device");
    return {};
  });
}

}  // namespace virtuserns::compute
