// Session: the state of a connection that handlers read and change. Thread-safe: calls of one client run in parallel.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "driver/driver.h"
#include "driver/rpc/message.h"

namespace virtuserns::rpc {

// Who is at the other end, as the kernel said at accept.
struct Peer {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // of the process, in clock ticks after boot: with the pid it names one process
  PidFd pidfd;                   // when the kernel has it: proof that the pid is not another process's by now
  std::vector<gid_t> groups;     // of the process when it connected, its supplementary ones
};

enum class AuthMethod { kNone, kPolkit };

struct OpenDriver {  // a loaded driver, as connections open it
  std::string scheme;
  Driver* driver = nullptr;
};

// What all sessions of a daemon share. Set before the first client, constant afterwards.
struct SessionHost {
  std::vector<OpenDriver> drivers;  // the first serves names that name no other
  bool is_session_daemon = false;   // "userns:///session"
  // access_drivers = [ "owner" ]: whoever is neither root nor in one of these groups manages own domains only.
  bool checks_owner = false;
  std::vector<gid_t> admin_groups;
  void (*prepare_worker)() = nullptr;  // called first in each thread that decodes what clients say
};

// One event registration of a client. Legacy ones carry no callback id on the wire.
struct Registration {
  std::int32_t callback_id = 0, event_id = 0;
  std::optional<Uuid> domain;
  bool is_legacy = false;
};

class Session {
 public:
  Session(const SessionHost& host, Peer peer, std::uint64_t id, bool read_only, AuthMethod method);

  [[nodiscard]] const Peer& peer() const { return peer_; }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] AuthMethod auth_method() const { return method_; }
  [[nodiscard]] bool is_socket_read_only() const { return is_socket_read_only_; }
  [[nodiscard]] bool is_authenticated() const { return is_authenticated_; }
  void set_authenticated() { is_authenticated_ = true; }

  // Picks the driver by the URI. Refuses a second open.
  [[nodiscard]] Result<void> open(const std::string& name, bool read_only);
  [[nodiscard]] Driver* driver() const { return driver_; }  // nullptr: not open
  [[nodiscard]] std::string uri() const;
  [[nodiscard]] Caller caller() const;
  // CONNECT_SET_IDENTITY: from a proxy that root runs, or of oneself.
  [[nodiscard]] Result<void> set_identity(const TypedParams& params);

  [[nodiscard]] Result<std::int32_t> add_registration(std::int32_t event_id, std::optional<Uuid> domain,
                                                      bool is_legacy);
  [[nodiscard]] Result<void> remove_registration(std::int32_t callback_id);
  [[nodiscard]] Result<void> remove_legacy_registration(std::int32_t event_id);
  [[nodiscard]] std::vector<Registration> registrations_for(std::int32_t event_id, const Uuid& domain) const;
  [[nodiscard]] std::size_t registration_count() const;

  [[nodiscard]] Result<void> set_close_callback(bool on);
  void want_keepalive() { wants_keepalive_ = true; }
  [[nodiscard]] bool wants_keepalive() const { return wants_keepalive_; }

 private:
  const SessionHost& host_;
  const Peer peer_;
  const std::uint64_t id_;
  const bool is_socket_read_only_;
  const AuthMethod method_;
  std::atomic<bool> is_authenticated_;
  std::atomic<bool> wants_keepalive_{false};
  std::atomic<Driver*> driver_{nullptr};

  mutable std::mutex mutex_;  // guards what follows
  Caller caller_;
  std::string uri_;
  std::map<std::int32_t, Registration> registrations_;
  std::int32_t next_callback_id_ = 1;
  bool has_close_callback_ = false;
};

}  // namespace virtuserns::rpc
