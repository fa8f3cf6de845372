// The container's consoles: output to a log and to whoever is attached, input from them.
//
// The container is the untrusted side and the attached client may never read: neither can stop the other, the
// controller or the log, nor make memory grow. Output that a client does not take is dropped, oldest first. The end of
// what was written while nobody was attached is kept for the next client, as a terminal's own buffer would: who starts
// a domain and then attaches sees it boot. A terminal that is hung up (systemd does so at each start) comes back.
//
// A terminal of the host is for programs that open the console as a file (virsh ttyconsole, Nova). Who has it open sees what is
// written from then on, beside the attached client and the log, and types as the client does.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "driver/controller/host.h"
#include "driver/kernel/console.h"

namespace virtuserns::controller {

// What an epoll event belongs to. The low half is an index.
enum class EventKind : std::uint32_t {
  kInit = 1,
  kListener,
  kSignals,
  kConnection,
  kMaster,
  kClient,
  kTerminal,
  kRefusals,
  kCommand,
  kStem,
  kStorage,
  kStorageErrors
};
constexpr std::uint64_t event_tag(EventKind kind, std::size_t index) {
  return static_cast<std::uint64_t>(kind) << 32 | static_cast<std::uint32_t>(index);
}
[[nodiscard]] std::int64_t monotonic_ms();

class Consoles {
 public:
  // A log that is full goes aside: the new one, or empty when there is none to be had.
  using Rotate = std::function<Fd(std::uint32_t index)>;

  // `epoll` outlives this.
  Consoles(const LaunchPlan& plan, Host& host, const Fd& epoll, Rotate rotate);

  // The terminals of a new boot. Attached clients stay.
  void adopt(std::vector<kernel::Pty> ptys);
  // What the dying container had still written is taken, then its terminals are closed.
  void drain_and_close();
  // The peer of a new client socket. Busy unless `force`, which hangs up the present client.
  [[nodiscard]] Result<SocketFd> attach(std::uint32_t port, bool force);

  void on_master(std::size_t index, std::uint32_t events);
  void on_client(std::size_t index, std::uint32_t events);
  void on_terminal(std::size_t index);
  // Terminals that hung up are tried again. The time of the next try, or -1.
  [[nodiscard]] std::int64_t next_retry_ms() const;
  void retry(std::int64_t now_ms);

 private:
  struct Console {
    std::uint32_t port = 0;
    Fd master, slave;  // the slave is held so that the terminal lives while nobody in the container has it open
    Fd terminal;       // of the host: its master
    SocketFd client;
    std::string to_client, to_master, unseen;
    Fd log;
    std::uint64_t log_bytes = 0;
    std::int64_t retry_at_ms = -1;
    std::uint32_t master_events = 0, client_events = 0;  // as registered; 0: not registered
  };
  bool read_master(Console& console);
  void write_log(Console& console, std::string_view text);
  static void take_log(Console& console, Fd log);
  static void write_terminal(const Console& console, std::string_view text);
  void read_terminal(Console& console);
  void flush_client(Console& console);
  void flush_master(Console& console);
  static void write_master(Console& console);
  void watch_terminal(const Console& console, int operation);
  void close_client(Console& console);
  void close_master(Console& console);
  void watch(Console& console);
  void set_events(const Fd& fd, EventKind kind, const Console& console, std::uint32_t& registered,
                  std::uint32_t wanted);

  const Fd& epoll_;
  Rotate rotate_;
  std::vector<Console> consoles_;
};

}  // namespace virtuserns::controller
