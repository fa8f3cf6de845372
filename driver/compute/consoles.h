// Serial consoles of instances as TCP listeners, one for one visitor, which is what nova-serialproxy connects to.
//
// Whoever can reach the port first has the console, so it listens where the configuration says, and not for long. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "conf/base/fd.h"
#include "driver/compute/hypervisor.h"

namespace virtuserns::compute {

inline constexpr std::size_t kMaxConsoles = 128;

class Consoles {
 public:
  explicit Consoles(Hypervisor& hypervisor) : hypervisor_(hypervisor) {}
  ~Consoles();
  Consoles(const Consoles&) = delete;
  Consoles& operator=(const Consoles&) = delete;

  // The port at `address` (IPv4 or IPv6). A visitor before that one loses the console.
  [[nodiscard]] Result<std::uint16_t> open(const std::string& uuid, const std::string& address);

 private:
  struct Session {
    SocketFd listener;
    std::uint16_t port = 0;
    std::string uuid;
    // With the mutex: nobody has come yet, and for how long nobody has asked for it.
    bool is_waiting = true;
    int waited_ms = 0;
    std::thread thread;
    std::atomic<bool> is_done{false};
  };
  void run(Session& session);
  void relay(const std::string& uuid, const SocketFd& visitor);
  void relay(const client::Stream& stream, const SocketFd& visitor);
  void reap();

  Hypervisor& hypervisor_;
  std::atomic<bool> is_ending_{false};
  std::mutex mutex_;
  std::list<Session> sessions_;
};

}  // namespace virtuserns::compute
