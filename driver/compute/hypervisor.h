// The hypervisor behind one libvirt connection, whichever it is.
//
// The daemon behind it may die and come back at any time: each function finds a connection that lives, waits for one for a while, and asks
// again when its answer was lost. So each says what is to be, and is satisfied when it is so already. Thread-safe.
//
// Errors carry libvirt's own codes; kUnavailable: no daemon answered within the patience.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "driver/client/handles.h"

namespace virtuserns::compute {

enum class PowerState { kNone, kRunning, kPaused, kShutdown, kCrashed };

struct DomainFacts {
  PowerState state = PowerState::kNone;
  std::uint64_t max_memory_kib = 0, memory_kib = 0, cpu_time_ns = 0;
  unsigned vcpus = 0;
  int id = -1;
};

struct ListedDomain {
  std::string uuid, name;
  PowerState state = PowerState::kNone;
};

// `uuid` empty: "lost", which is of all of them.
struct DomainEvent {
  std::string uuid;
  std::string_view name;  // of docs/compute-api.md; lives for ever
};

class Hypervisor {
 public:
  // `on_event` is called by a thread of this class and must not ask it anything.
  Hypervisor(std::string uri, std::chrono::milliseconds patience, std::function<void(const DomainEvent&)> on_event);
  ~Hypervisor();
  Hypervisor(const Hypervisor&) = delete;
  Hypervisor& operator=(const Hypervisor&) = delete;

  // Calls `ask` with a connection that lives and that nobody else uses meanwhile, again when that was lost under it.
  template <class Ask>
  auto run(Ask&& ask) -> decltype(ask(virConnectPtr())) {
    const auto deadline = std::chrono::steady_clock::now() + patience_;
    while (true) {
      const auto connection = TRY(borrow(deadline));
      auto answer = ask(connection.get());
      if (answer || ::virConnectIsAlive(connection.get()) == 1) return answer;
    }
  }
  // As run(), with the domain. VIR_ERR_NO_DOMAIN: there is none.
  template <class Ask>
  auto run_on(const std::string& uuid, Ask&& ask) -> decltype(ask(client::Domain())) {
    return run([&](virConnectPtr connection) -> decltype(ask(client::Domain())) {
      auto domain = TRY(client::find_domain(connection, uuid));
      if (!domain) return fail(VIR_ERR_NO_DOMAIN, "the hypervisor has no domain " + uuid);
      return ask(std::move(domain));
    });
  }

  [[nodiscard]] Result<std::string> capabilities();
  [[nodiscard]] Result<std::vector<ListedDomain>> list();
  [[nodiscard]] Result<DomainFacts> facts(const std::string& uuid);
  [[nodiscard]] Result<std::string> xml(const std::string& uuid, unsigned flags);
  [[nodiscard]] Result<void> define(const std::string& xml);
  [[nodiscard]] Result<void> ensure_undefined(const std::string& uuid);
  [[nodiscard]] Result<void> ensure_running(const std::string& uuid);  // a paused one stays paused
  [[nodiscard]] Result<void> ensure_off(const std::string& uuid);      // at once; no such domain is off
  // Asks the guest, and ends it when that has not happened by then.
  [[nodiscard]] Result<void> shut_down(const std::string& uuid, std::chrono::seconds timeout);
  // False: the guest did not do it within that time.
  [[nodiscard]] Result<bool> reboot(const std::string& uuid, std::chrono::seconds timeout);
  [[nodiscard]] Result<void> ensure_paused(const std::string& uuid);
  [[nodiscard]] Result<void> ensure_resumed(const std::string& uuid);
  [[nodiscard]] Result<void> attach(const std::string& uuid, const std::string& device_xml, unsigned flags);
  [[nodiscard]] Result<void> detach(const std::string& uuid, const std::string& device_xml, unsigned flags);

  // flags: virDomainCoreDumpFlags.
  [[nodiscard]] Result<void> dump(const std::string& uuid, const std::string& path, unsigned flags);

  [[nodiscard]] const std::string& uri() const { return uri_; }

 private:
  using Shared = std::shared_ptr<virConnect>;

  [[nodiscard]] Result<Shared> borrow(std::chrono::steady_clock::time_point deadline);  // until it is released
  void give_back(Shared connection);
  [[nodiscard]] Result<Shared> open(bool has_events);
  [[nodiscard]] bool find_live_locked();
  [[nodiscard]] std::vector<Shared> take_spent_locked();
  [[nodiscard]] bool is_short_locked() const { return !connection_ || wanted_ > idle_.size(); }
  void keep_connected();
  void tell(const DomainEvent& event);
  void count_reboot(const std::string& uuid);
  static void on_lifecycle(virConnectPtr, virDomainPtr domain, int event, int detail, void* self);
  static void on_reboot(virConnectPtr, virDomainPtr domain, void* self);
  static void on_close(virConnectPtr connection, int reason, void* self);

  std::string uri_;
  std::chrono::milliseconds patience_;
  std::function<void(const DomainEvent&)> on_event_;

  std::mutex mutex_;
  std::condition_variable changed_;
  Shared connection_;           // which is told events, and used like the others; null: none that is known to live
  std::vector<Shared> idle_;    // which nobody has borrowed, connection_ among them
  std::vector<Shared> spent_;   // to be closed by the keeper, since that may take long too
  std::size_t wanted_ = 0;      // how many wait for one
  bool was_connected_ = false;  // once: a new one has missed something
  bool is_ending_ = false, has_keeper_ended_ = false;
  std::string why_not_;                                         // of the last attempt to connect
  std::vector<std::pair<std::string, std::uint64_t>> reboots_;  // those that somebody waits for
  std::atomic<bool> stops_events_{false};
  std::thread events_, keeper_;
};

}  // namespace virtuserns::compute
