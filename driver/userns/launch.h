// Starting programs of ours: the controller of a domain, and its clean-up after a dead one. The daemon never forks: it
// posix_spawns, and the child keeps no descriptor but those it is given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/plan.h"
#include "driver/controller/plug.h"

namespace virtuserns::userns {

// A controller that waits for its plan. Closing the channel sends it away before it has done anything.
struct Launched {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // field 22 of /proc/PID/stat
  PidFd process;
  SocketFd channel;
  Fd plan;  // the pipe on which it gets that
};

// The environment of every controller says whose it is ("VIRTUSERNS_RUN=<driver_run>/<uuid>"), so that one whose daemon
// died before it wrote down the pid can be found: the oldest such process, 0 when there is none.
[[nodiscard]] pid_t find_controller(const std::string& proc, const LaunchPlan& plan);

// Shared with a launch that may outlive whoever waited for it.
using FilesPtr = std::shared_ptr<const std::vector<Fd>>;

// What is known of a domain before its plan is made.
struct LaunchRequest {
  std::string program, name;
  std::string run;  // "<driver_run>/<uuid>"
  std::string log_path;
  FilesPtr files;  // for init
};

// A line with the time at the end of a domain's log. What cannot be written is lost: a log is no reason to fail.
void append_to_log(const std::string& log_path, const std::string& text);
// `log_path` takes what the controller prints; a log that cannot be opened is no reason not to start.
[[nodiscard]] Result<Launched> launch_controller(const LaunchRequest& request);
// From here on it is at work.
[[nodiscard]] Result<void> hand_over_plan(Launched& launched, const std::vector<std::uint8_t>& plan);
// Runs `program --reap` and waits, at most `timeout_ms`. The reaper gives up by itself (kernel::remove_cgroups); this is
// for one that hangs.
inline constexpr int kReapTimeoutMs = 150'000;
[[nodiscard]] Result<void> reap_domain(const std::string& program, const LaunchPlan& plan,
                                       const std::string& log_path, int timeout_ms);

// Runs `program --open` and waits: the mounts of `ask`, in order.
[[nodiscard]] Result<std::vector<Fd>> open_sources(const std::string& program, const controller::OpenAsk& ask,
                                                   const std::string& log_path, int timeout_ms);

// Runs `program --dump` and waits, at most `timeout_ms`: the domain may hold up whoever looks at it. The bundle goes to `output`.
// VIR_ERR_OPERATION_ABORTED: `is_unwanted` said so.
[[nodiscard]] Result<void> dump_domain(const std::string& program, const controller::DumpAsk& ask, const Fd& output,
                                       const std::string& log_path, int timeout_ms,
                                       const std::function<bool()>& is_unwanted);

[[nodiscard]] Result<PidFd> open_pidfd(pid_t pid);
[[nodiscard]] Result<std::uint64_t> read_start_time(const std::string& proc, pid_t pid);
// SIGKILL by pidfd, and wait until it is dead; a child of ours is reaped.
void kill_and_wait(const PidFd& process, int timeout_ms);
// It is about to end by itself: waits a moment for that, then as above.
void await_exit(const PidFd& process, int timeout_ms);
// Takes the exit status of a child of ours; no-op for others'.
void reap_zombie(const PidFd& process);

}  // namespace virtuserns::userns
