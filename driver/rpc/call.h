// Call: what a handler sees of the call it serves, and of the connection it came by.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/driver.h"
#include "driver/rpc/session.h"

namespace virtuserns::rpc {

struct Row;

struct Call {
  Session& session;
  const Row& row;
  Driver* driver = nullptr;  // never nullptr in handlers of rows that need an open connection
  Caller caller;
  std::vector<Fd> fds;  // that came with the call
  // Set by handlers:
  std::vector<Fd> reply_fds;       // to send with the reply
  std::optional<SocketFd> stream;  // becomes a stream with the serial of this call
  bool closes_connection = false;  // once the reply is sent

  [[nodiscard]] bool is_read_only() const { return caller.read_only; }
};

}  // namespace virtuserns::rpc
