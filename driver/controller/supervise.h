// The controller's life after the first boot: one epoll loop, one thread, plain state.
#pragma once

#include <deque>
#include <map>

#include "driver/controller/boot.h"
#include "driver/controller/commands.h"
#include "driver/controller/consoles.h"
#include "driver/controller/refusals.h"
#include "driver/controller/stem.h"

namespace virtuserns::controller {

class Supervisor {
 public:
  // `channel`: the daemon that started us, the first connection. `listener`: where later ones come from; `plugs`: to the stem.
  struct Listeners {
    SocketFd controller, plugs;
  };
  Supervisor(LaunchPlan plan, Host host, std::vector<Fd> passed_files, SocketFd channel, Listeners listeners);

  // Boots, reports the outcome, and supervises until the domain has ended and everything of it is gone.
  // The exit status of the program.
  [[nodiscard]] int run();

 private:
  struct Connection {
    SocketFd socket;
    std::uint64_t age = 0;
  };
  struct PendingFreeze {
    std::size_t connection;
    std::uint32_t serial;
    bool freeze;
    std::int64_t deadline_ms;
  };

  // supervise.cpp: the loop, boots and ends
  void watch(const Fd& fd, EventKind kind, std::size_t index);
  [[nodiscard]] Result<void> boot_first();
  [[nodiscard]] Result<void> boot_again();
  [[nodiscard]] Result<void> adopt(Result<Boot> booted);
  // What nobody needs to wait for: the container has its own copy of the tree now, and that of the stem would only keep
  // its file systems busy.
  void tidy_up_after_boot();
  void reboot();
  void on_init_exit();
  void on_stem_gone();
  void on_storage_gone(std::size_t index);
  void on_storage_errors(StorageDaemon& daemon);
  [[nodiscard]] std::string lost_image() const;
  void finish(ExitCause cause, int wait_status, const std::string& error = {});
  void on_signals();
  void on_timers();
  [[nodiscard]] int timeout_ms() const;
  void dispatch(EventKind kind, std::size_t index, std::uint32_t events);

  // connections.cpp: who talks to us
  void accept_connection();
  void add_connection(SocketFd socket);
  void on_connection(std::size_t id);
  bool send(std::size_t id, const FromController& message, std::span<const int> files = {});
  void close_connection(std::size_t id);
  void forget_dead_daemons();
  void note(const Note& note);
  void reply(std::size_t id, std::uint32_t serial, const Result<void>& result);

  // requests.cpp: one function per request
  void handle(std::size_t id, const Request& request);
  void handle(std::size_t id, std::uint32_t serial, const StatusRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const AckRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const DestroyRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const FreezeRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const SignalRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const ShutdownRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const ResetRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const ConsoleRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const NamespacesRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const CgroupWriteRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const PolicyRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const AddressesRequest& request);
  void handle(std::size_t id, std::uint32_t serial, const ExecRequest& request);
  [[nodiscard]] Result<const Boot*> running() const;
  void kill_init();
  void poll_freezes();

  LaunchPlan plan_;
  Host host_;
  std::vector<Fd> passed_files_;
  std::vector<Fd> request_files_;  // that came with the request that is being handled
  const uid_t owner_;              // who started it, before the cage
  Fd epoll_, signals_;
  SocketFd listener_, plugs_;  // plugs_: until the stem has it
  Stem stem_;
  Consoles consoles_;
  Refusals refusals_;
  Commands commands_;
  std::map<std::size_t, Connection> connections_;
  std::size_t next_connection_ = 0;

  std::optional<Boot> boot_;  // empty: between two boots
  BootRecord last_boot_;
  std::uint64_t boots_ = 0;
  std::deque<std::int64_t> boot_times_ms_;
  std::int64_t reboot_at_ms_ = -1;
  bool is_destroying_ = false, is_resetting_ = false, restart_once_ = false, has_ended_ = false,
       is_stem_gone_ = false;
  std::string lost_image_;

  std::deque<Note> unacknowledged_;
  std::uint64_t sequence_ = 0;
  std::vector<std::pair<std::size_t, std::uint32_t>> waiting_destroys_, waiting_resets_;
  std::vector<PendingFreeze> freezes_;
};

}  // namespace virtuserns::controller
