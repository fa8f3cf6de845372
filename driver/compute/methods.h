// The methods of docs/compute-api.md: what comes in a frame to a call of Compute, and its answer back.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "driver/compute/compute.h"
#include "driver/compute/host.h"

namespace virtuserns::compute {

inline constexpr std::string_view kApiVersion = "1.3";

struct Service {
  Compute& compute;
  Host& host;
};
struct Peer {
  uid_t uid = 0;
};

struct Answer {
  std::string text;           // a JSON-RPC response; empty: none is due (a notification)
  bool wants_events = false;  // the connection is one for events from now on
  Fd passed;                  // goes with it
};
// One JSON-RPC request. Never fails: what is wrong with it is the answer. Thread-safe.
[[nodiscard]] Answer answer(const Service& service, const Peer& peer, std::string_view request);
// {"jsonrpc": "2.0", "method": "event", ...}
[[nodiscard]] std::string format_event(const DomainEvent& event, std::int64_t at);

}  // namespace virtuserns::compute
