#include "driver/userns/systemd.h"

#include <net/if.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <limits>

#include "conf/base/log.h"
#include "conf/base/text.h"

namespace virtuserns::userns {

namespace {

// systemd answers within milliseconds, but not while it reloads its units. Less than the controller waits.
constexpr std::uint64_t kScopeTimeoutUs = 30'000'000;
constexpr std::uint64_t kMachinedTimeoutUs = 10'000'000;
constexpr std::uint64_t kGroupTimeoutUs = 5'000'000;
constexpr std::size_t kMaxIdle = 4;
constexpr int kMostStale = 1000;  // messages that an idle connection has collected

struct Unref {
  void operator()(sd_bus_message* message) const { sd_bus_message_unref(message); }
  void operator()(sd_bus_slot* slot) const { sd_bus_slot_unref(slot); }
  void operator()(sd_bus* bus) const { sd_bus_flush_close_unref(bus); }
};
using Message = std::unique_ptr<sd_bus_message, Unref>;
using Slot = std::unique_ptr<sd_bus_slot, Unref>;

// The call's error in its own words, else errno's.
Error bus_fail(const char* what, int rc, sd_bus_error* error = nullptr) {
  Error result = sys_fail(what, -rc);
  if (error && error->message) result.text = std::string(what) + ": " + printable(error->message);
  if (error) sd_bus_error_free(error);
  return result;
}

Result<sd_bus*> open_system_bus() {
  sd_bus* bus = nullptr;
  if (const int rc = sd_bus_open_system(&bus); rc < 0) return bus_fail("connect to the system bus", rc);
  return bus;
}

// Of a D-Bus address: all that is not plain as %XX.
std::string escape_address(const std::string& path) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string escaped;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '/' || c == '_' || c == '.' || c == '-')
      escaped += c;
    else
      escaped += std::string("%") + kHex[byte >> 4] + kHex[byte & 15];
  }
  return escaped;
}

// As systemctl --user does it: there need not be a message bus. Whoever listens there is to be the user.
Result<sd_bus*> open_user_systemd(const std::string& socket) {
  sd_bus* raw = nullptr;
  int rc = sd_bus_new(&raw);
  std::unique_ptr<sd_bus, Unref> bus(raw);
  if (rc >= 0) rc = sd_bus_set_address(bus.get(), ("unix:path=" + escape_address(socket)).c_str());
  if (rc >= 0) rc = sd_bus_start(bus.get());
  const std::string what = "connect to " + quote(socket);
  if (rc < 0) return bus_fail(what.c_str(), rc);
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(sd_bus_get_fd(bus.get()), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return sys_fail(what);
  if (peer.uid != ::geteuid()) return fail(VIR_ERR_OPERATION_DENIED, what + ": another user listens there");
  return bus.release();
}

// "Yes" means v2's controllers to systemd. With v1 the others are named too: one that is not delegated is taken away from
// the scope, and its processes moved up, as soon as somebody gives the slice a setting of that controller.
int append_delegation(sd_bus_message* call, Controllers controllers) {
  if (controllers == Controllers::kV2) return sd_bus_message_append(call, "(sv)", "Delegate", "b", 1);
  return sd_bus_message_append(call, "(sv)", "DelegateControllers", "as", 8, "cpu", "cpuacct", "cpuset", "io",
                               "blkio", "memory", "devices", "pids");
}

Result<Message> scope_call(sd_bus* bus, const Scope& scope, pid_t pid, const std::string& description) {
  sd_bus_message* raw = nullptr;
  int rc = sd_bus_message_new_method_call(bus, &raw, "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                                          "org.freedesktop.systemd1.Manager", "StartTransientUnit");
  Message call(raw);
  // Limits are ours, in the groups below. The guests' shutdown target: so that libvirt-guests.service, where somebody
  // uses it, shuts domains down before systemd ends their scopes.
  if (rc >= 0) rc = sd_bus_message_append(call.get(), "ss", scope.unit.c_str(), "fail");
  if (rc >= 0) rc = sd_bus_message_open_container(call.get(), 'a', "(sv)");
  const auto property = [&](const char* name, const char* type, auto... values) {
    if (rc >= 0) rc = sd_bus_message_append(call.get(), "(sv)", name, type, values...);
  };
  property("Description", "s", description.c_str());
  property("Slice", "s", scope.slice.c_str());
  property("PIDs", "au", 1, static_cast<std::uint32_t>(pid));
  property("TasksMax", "t", std::numeric_limits<std::uint64_t>::max());
  property("CollectMode", "s", "inactive-or-failed");
  property("Before", "as", 1, "virt-guest-shutdown.target");
  if (rc >= 0) rc = append_delegation(call.get(), scope.controllers);
  if (rc >= 0) rc = sd_bus_message_close_container(call.get());
  if (rc >= 0) rc = sd_bus_message_append(call.get(), "a(sa(sv))", 0);
  if (rc < 0) return bus_fail("make a request for a scope", rc);
  return call;
}

// What JobRemoved says of the scope: "done", or why not.
struct JobEnd {
  std::string unit;
  std::string result;
};

int on_job_removed(sd_bus_message* signal, void* data, sd_bus_error*) {
  auto& end = *static_cast<JobEnd*>(data);
  std::uint32_t id = 0;
  const char *job = nullptr, *unit = nullptr, *result = nullptr;
  if (sd_bus_message_read(signal, "uoss", &id, &job, &unit, &result) >= 0 && end.unit == unit) end.result = result;
  return 0;
}

std::uint64_t now_us() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

}  // namespace

bool is_systemd_here() { return sd_booted() > 0; }

// ---- scopes -------------------------------------------------------------------------------------------------------------

void Systemd::Closer::operator()(sd_bus* bus) const { sd_bus_flush_close_unref(bus); }

Systemd::~Systemd() = default;

Result<Systemd::Bus> Systemd::take() {
  while (Bus bus = take_idle()) {
    // What has come since; one whose bus has gone says so, and one that does not end is left.
    int rc = 1;
    for (int i = 0; i < kMostStale && rc > 0; ++i) rc = sd_bus_process(bus.get(), nullptr);
    if (rc == 0 && sd_bus_is_ready(bus.get()) > 0) return bus;
  }
  return Bus(TRY(user_socket_.empty() ? open_system_bus() : open_user_systemd(user_socket_)));
}

Systemd::Bus Systemd::take_idle() {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return {};
  Bus bus = std::move(idle_.back());
  idle_.pop_back();
  return bus;
}

// A user's systemd sends all its signals to whoever is connected, also to one who does not read.
void Systemd::give_back(Bus bus) {
  if (!user_socket_.empty()) return;
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdle) idle_.push_back(std::move(bus));
}

Result<std::string> Systemd::own_group() {
  Bus bus = TRY(take());
  (void)sd_bus_set_method_call_timeout(bus.get(), kGroupTimeoutUs);
  sd_bus_error error = SD_BUS_ERROR_NULL;
  char* text = nullptr;
  const int rc = sd_bus_get_property_string(bus.get(), "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                                            "org.freedesktop.systemd1.Manager", "ControlGroup", &error, &text);
  if (rc < 0) return bus_fail("ask systemd for its group", rc, &error);
  const std::unique_ptr<char, decltype(&std::free)> owned(text, &std::free);
  give_back(std::move(bus));
  const std::string group(text);
  const auto parts = split(std::string_view(group).substr(group.empty() ? 0 : 1), '/');
  const bool is_plain =
      group.starts_with('/') && group.size() < PATH_MAX &&
      std::none_of(parts.begin(), parts.end(), [](auto part) { return part.empty() || part == "." || part == ".."; });
  if (!is_plain) return fail(VIR_ERR_OPERATION_FAILED, "systemd says that its group is " + quote(group));
  return group.substr(1);
}

Result<void> Systemd::start_scope(const Scope& scope, pid_t pid, const std::string& description) {
  Bus bus = TRY(take());
  TRY(start_scope_on(bus.get(), scope, pid, description), "scope " + quote(scope.unit));
  give_back(std::move(bus));
  return {};
}

// The match goes out before the call and is not waited for. It lives as long as this job, so that an idle connection
// collects no signals. (By the unit's name sd-bus could not match: it looks at no argument behind a number.)
Result<void> Systemd::start_scope_on(sd_bus* bus, const Scope& scope, pid_t pid, const std::string& description) {
  JobEnd end{scope.unit, ""};
  sd_bus_slot* raw_slot = nullptr;
  if (const int rc =
          // Without a bus between us nobody writes down who has sent it.
      sd_bus_match_signal_async(bus, &raw_slot, sd_bus_is_bus_client(bus) > 0 ? "org.freedesktop.systemd1" : nullptr,
                                "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "JobRemoved",
                                on_job_removed, nullptr, &end);
      rc < 0)
    return bus_fail("watch jobs", rc);
  const Slot slot(raw_slot);
  const Message call = TRY(scope_call(bus, scope, pid, description));
  sd_bus_error error = SD_BUS_ERROR_NULL;
  sd_bus_message* raw_reply = nullptr;
  const std::uint64_t deadline = now_us() + kScopeTimeoutUs;  // of both, the answer and the job
  if (const int rc = sd_bus_call(bus, call.get(), kScopeTimeoutUs, &error, &raw_reply); rc < 0)
    return bus_fail("ask systemd", rc, &error);
  const Message reply(raw_reply);
  while (end.result.empty()) {
    const auto now = now_us();
    if (now >= deadline) return fail(VIR_ERR_OPERATION_TIMEOUT, "systemd does not start it in time");
    int rc = sd_bus_process(bus, nullptr);
    if (rc == 0) rc = sd_bus_wait(bus, deadline - now);
    if (rc < 0) return bus_fail("wait for systemd", rc);
  }
  if (end.result != "done") return fail(VIR_ERR_OPERATION_FAILED, "systemd: job " + printable(end.result));
  return {};
}

// ---- machined -----------------------------------------------------------------------------------------------------------

namespace {

constexpr const char* kMachineExists = "org.freedesktop.machine1.MachineExists";
constexpr const char* kNoSuchMachine = "org.freedesktop.machine1.NoSuchMachine";

Result<void> call_machined(sd_bus* bus, const Message& call, const char* ignored) {
  sd_bus_error error = SD_BUS_ERROR_NULL;
  sd_bus_message* raw_reply = nullptr;
  const int rc = sd_bus_call(bus, call.get(), kMachinedTimeoutUs, &error, &raw_reply);
  const Message reply(raw_reply);
  if (rc < 0 && ignored && sd_bus_error_has_name(&error, ignored)) {
    sd_bus_error_free(&error);
    return {};
  }
  if (rc < 0) {
    const bool exists = sd_bus_error_has_name(&error, kMachineExists) != 0;
    Error failure = bus_fail("ask machined", rc, &error);
    if (exists) failure.sys_errno = EEXIST;
    return failure;
  }
  return {};
}

Result<Message> machined_call(sd_bus* bus, const char* method) {
  sd_bus_message* raw = nullptr;
  const int rc = sd_bus_message_new_method_call(bus, &raw, "org.freedesktop.machine1", "/org/freedesktop/machine1",
                                                "org.freedesktop.machine1.Manager", method);
  if (rc < 0) return bus_fail("make a request for machined", rc);
  return Message(raw);
}

Result<void> unregister(sd_bus* bus, const std::string& name) {
  const Message call = TRY(machined_call(bus, "UnregisterMachine"));
  if (const int rc = sd_bus_message_append(call.get(), "s", name.c_str()); rc < 0)
    return bus_fail("make a request for machined", rc);
  return call_machined(bus, call, kNoSuchMachine);
}

// Into the list, by the unit in which its leader is: the scope that is there already.
Result<void> register_once(sd_bus* bus, const Machine& machine) {
  const Message call = TRY(machined_call(bus, "RegisterMachineWithNetwork"));
  std::vector<std::int32_t> links;
  for (const auto& link : machine.host_links)
    if (const auto index = ::if_nametoindex(link.c_str()); index != 0)
      links.push_back(static_cast<std::int32_t>(index));
  int rc = sd_bus_message_append(call.get(), "s", machine.name.c_str());
  if (rc >= 0)
    rc = sd_bus_message_append_array(call.get(), 'y', machine.uuid.bytes.data(), machine.uuid.bytes.size());
  if (rc >= 0)
    rc = sd_bus_message_append(call.get(), "ssus", "virtuserns", "container",
                               static_cast<std::uint32_t>(machine.leader), machine.root_directory.c_str());
  if (rc >= 0) rc = sd_bus_message_append_array(call.get(), 'i', links.data(), links.size() * sizeof(std::int32_t));
  if (rc < 0) return bus_fail("make a request for machined", rc);
  return call_machined(bus, call, nullptr);
}

Result<void> register_machine(const Machine& machine) {
  const std::unique_ptr<sd_bus, Unref> bus(TRY(open_system_bus()));
  auto done = register_once(bus.get(), machine);
  if (done || done.error().sys_errno != EEXIST) return done;
  TRY(unregister(bus.get(), machine.name));
  return register_once(bus.get(), machine);
}

Result<void> unregister_machine(const std::string& name) {
  const std::unique_ptr<sd_bus, Unref> bus(TRY(open_system_bus()));
  return unregister(bus.get(), name);
}

}  // namespace

void Machines::add(Machine machine) {
  thread_.submit([machine = std::move(machine)] {
    if (auto done = register_machine(machine); !done)
      log_warning("userns", "machine " + quote(machine.name) + " is not in machinectl's list: " + done.error().text);
  });
}

void Machines::remove(std::string name) {
  thread_.submit([name = std::move(name)] {
    if (auto done = unregister_machine(name); !done)
      // machined drops it by itself when its unit is gone.
      log_info("userns", "machine " + quote(name) + " may still be in machinectl's list: " + done.error().text);
  });
}

}  // namespace virtuserns::userns
