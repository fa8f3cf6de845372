// Refused system calls: answered with EPERM, and told in the domain's log.
//
// The container decides how often it makes such calls, so everything here is bounded: calls that are answered in a second
// (beyond that the callers wait, and only they), what is remembered, and lines, of which each pair of a call and a program
// has its first, and then ever fewer.
#pragma once

#include <map>
#include <string>

#include "driver/controller/consoles.h"
#include "driver/kernel/seccomp.h"

namespace virtuserns::controller {

// One line of the domain's log, in the way of the daemon, which writes there too.
void write_log_line(const std::string& text);

class Refusals {
 public:
  // `plan`, `host` and `epoll` outlive this. The names of calls are taken out of the plan.
  Refusals(LaunchPlan& plan, const Host& host, const Fd& epoll);

  // Of a new boot; empty: this kernel does not tell.
  void adopt(Fd listener);
  void on_listener();
  // When callers that had to wait are answered; -1: nobody waits.
  [[nodiscard]] std::int64_t next_retry_ms() const { return retry_at_ms_; }
  void retry(std::int64_t now_ms);
  // The domain ends: what was counted and not told.
  void close();

 private:
  struct Told {
    std::uint64_t untold = 0;
    std::int64_t next_ms = 0, pause_ms = 0;
    std::string last;  // the last line without its count, for close()
  };
  void take(const kernel::RefusedCall& call);
  void tell(const std::string& line, Told& told);
  [[nodiscard]] std::string name_of(const kernel::RefusedCall& call) const;
  void refill(std::int64_t now_ms);
  void watch(std::uint32_t events, int operation);

  const LaunchPlan& plan_;
  const Host& host_;
  const Fd& epoll_;
  std::vector<CallName> names_;
  bool is_wanted_ = false;
  Fd listener_;
  std::map<std::string, Told> told_;
  std::map<std::string, int> programs_;  // that have lines of their own, by call
  std::int64_t budget_, refilled_ms_ = 0, retry_at_ms_ = -1;
};

}  // namespace virtuserns::controller
