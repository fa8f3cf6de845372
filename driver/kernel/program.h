// The few foreign programs that ours run (qemu-img, mke2fs): found in fixed folders, without our environment,
// in namespaces of their own of mounts, network and ipc, and ended with us.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct Ended {
  int status = 0;           // its exit status
  std::string out, errors;  // at most kMaxProgramOutput of each
};
inline constexpr std::size_t kMaxProgramOutput = 1024 * 1024;

// `argv[0]` is a name, or an absolute path. An error: it is not installed, it was killed, or it ran longer than `timeout_ms`.
[[nodiscard]] Result<Ended> run_program(const std::vector<std::string>& argv, int timeout_ms);
// As run_program; a status other than 0 is an error with what it said.
[[nodiscard]] Result<std::string> need_program(const std::vector<std::string>& argv, int timeout_ms = 60'000);

enum class Network { kNone, kHost };

// A child that goes on running. Killed and reaped when this goes, unless end() did that in order.
class Running {
 public:
  Running() = default;
  Running(Running&& other) noexcept = default;
  Running& operator=(Running&& other) noexcept;
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running();

  explicit Running(PidFd process) : process_(std::move(process)) {}
  // `out` and `errors` become its descriptors 1 and 2.
  [[nodiscard]] static Result<Running> start(const std::vector<std::string>& argv, const Fd& out, const Fd& errors,
                                             Network network = Network::kNone);
  // Its wait status, when it has ended by itself.
  [[nodiscard]] Result<int> wait();
  // SIGINT, which is what a program in a jail hears, and waits. An error: it did not end well.
  [[nodiscard]] Result<void> end(int timeout_ms);
  // Of the processor, by all its threads; none when it has ended.
  [[nodiscard]] std::chrono::nanoseconds time_used() const;
  [[nodiscard]] const PidFd& process() const { return process_; }

 private:
  PidFd process_;
};

}  // namespace virtuserns::kernel
