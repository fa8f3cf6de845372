// EchoConsole: the other end of a test domain's console. Greets, then says back what it is told.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::test_driver {

class EchoConsole {
 public:
  struct Opened;
  // The client's end is non-blocking; what is written to it comes back, after "Connected to <name>\n".
  [[nodiscard]] static Result<Opened> open(const std::string& domain_name);
  // Ends the session: the client reads end of file.
  ~EchoConsole();
  EchoConsole(const EchoConsole&) = delete;
  EchoConsole& operator=(const EchoConsole&) = delete;
  [[nodiscard]] bool is_open() const { return !ended_; }  // false once the client has closed its end

 private:
  EchoConsole(SocketFd fd, std::string greeting);
  void run(std::string greeting);

  SocketFd fd_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

struct EchoConsole::Opened {
  std::unique_ptr<EchoConsole> console;
  SocketFd client;
};

}  // namespace virtuserns::test_driver
