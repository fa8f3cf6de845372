// systemd over D-Bus: a scope for each domain, and machined's list of machines. docs/decisions/0013-a-scope-for-each-domain.md
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/uuid.h"
#include "driver/userns/scope.h"
#include "driver/userns/task_thread.h"

struct sd_bus;

namespace virtuserns::userns {

// systemd is pid 1 of this machine (sd_booted(3)).
[[nodiscard]] bool is_systemd_here();

// Thread-safe. Connections are kept, so that a scope costs one call and the wait for its job.
class Systemd {
 public:
  // `user_socket`: where a user's own systemd listens; empty: pid 1, by the system bus.
  explicit Systemd(std::string user_socket) : user_socket_(std::move(user_socket)) {}
  ~Systemd();
  Systemd(const Systemd&) = delete;
  Systemd& operator=(const Systemd&) = delete;

  // The group of a user's systemd, below which it makes all of its own, without a '/' in front.
  [[nodiscard]] Result<std::string> own_group();
  // The scope, delegated and without limits, with this process in it. Returns when the process is in its groups.
  [[nodiscard]] Result<void> start_scope(const Scope& scope, pid_t pid, const std::string& description);

 private:
  struct Closer {
    void operator()(sd_bus* bus) const;
  };
  using Bus = std::unique_ptr<sd_bus, Closer>;
  [[nodiscard]] Result<Bus> take();
  [[nodiscard]] Bus take_idle();
  void give_back(Bus bus);
  [[nodiscard]] static Result<void> start_scope_on(sd_bus* bus, const Scope& scope, pid_t pid,
                                                   const std::string& description);
  const std::string user_socket_;
  std::mutex mutex_;
  std::vector<Bus> idle_;
};

struct Machine {
  std::string name;
  Uuid uuid;
  pid_t leader = 0;  // init, in the host's pid namespace
  std::string root_directory;
  std::vector<std::string> host_links;
};

// machined's list of machines. A thread of its own, because machined may have to be started first, or never answer: nobody
// waits for it, and what fails is logged and no more. In the order of the calls.
class Machines {
 public:
  void start() { thread_.start(); }
  // Also of one that is listed already: then with the new leader.
  void add(Machine machine);
  void remove(std::string name);
  void stop() { thread_.stop(TaskThread::Rest::kDrop); }

 private:
  TaskThread thread_;
};

}  // namespace virtuserns::userns
