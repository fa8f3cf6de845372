// Runs real controllers in root tests: a busybox root filesystem, a plan made by hand, and the daemon's end of the talk.
// Timeouts are multiplied by time_factor().
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "driver/controller/plan.h"
#include "driver/controller/protocol.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::test {

inline constexpr std::uint32_t kHostId = 7340032;

// How much slower than a machine of today this one is: VIRTUSERNS_TIME_FACTOR, which tests/vm sets in an emulated one.
[[nodiscard]] int time_factor();

// Why the tests cannot run here, or empty. Call once before anything else: it also moves the process into private mount
// and network namespaces, so that nothing of the machine is touched but groups below virtuserns-test-<pid>.
[[nodiscard]] std::string enter_test_machine();

// A directory tree with busybox in it, owned by root, for an idmapped mount.
class RootTree {
 public:
  RootTree();
  [[nodiscard]] std::string path() const { return temp_.path() + "/root"; }
  [[nodiscard]] std::string temp() const { return temp_.path(); }
  void write(const std::string& name, const std::string& content, mode_t mode = 0644) const;
  [[nodiscard]] std::string read(const std::string& name) const;  // "" when there is none

 private:
  TempDir temp_;
};

// A plan as make_plan makes it, for `script` run by /bin/sh as pid 1 (or another argv).
[[nodiscard]] LaunchPlan make_plan_for(const RootTree& tree, const std::string& script);
[[nodiscard]] std::vector<CgroupStep> all_cgroups(const std::string& name);

class Domain {
 public:
  explicit Domain(LaunchPlan plan) : plan_(std::move(plan)) {}
  ~Domain();
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  // How the daemon answers a plan that names a scope: it says Placed, or is gone.
  enum class Daemon { kPlaces, kGone };
  void daemon_will(Daemon what) { daemon_ = what; }
  // The outcome: Started or Failed (or why there was none).
  [[nodiscard]] Result<controller::Note> start(const std::vector<int>& files = {});
  [[nodiscard]] Result<controller::BootRecord> start_ok(
      const std::vector<int>& files = {});  // Failed becomes an Error
  [[nodiscard]] Result<controller::Note> next_note(int timeout_ms = 10'000);
  // Sends and awaits the reply; notes that come meanwhile are kept for next_note.
  template <class Body>
  [[nodiscard]] Result<controller::Reply> request(Body body, int timeout_ms = 15'000,
                                                  std::span<const int> files = {}) {
    return exchange({++serial_, std::move(body)}, timeout_ms, files);
  }
  template <class Body>
  [[nodiscard]] Result<void> ask(Body body, int timeout_ms = 15'000) {
    const auto reply = TRY(request(std::move(body), timeout_ms));
    if (const auto* error = std::get_if<controller::WireError>(&reply.body))
      return Error{error->code, error->sys_errno, error->text};
    return {};
  }
  [[nodiscard]] Result<Fd> console(std::uint32_t port = 0, bool force = false);
  [[nodiscard]] Result<controller::StatusReply> status();
  void reconnect();        // as the next daemon: by the socket
  void kill_controller();  // SIGKILL, and waits
  [[nodiscard]] bool wait_controller(int timeout_ms = 10'000);
  [[nodiscard]] int reap() const;  // exit status of --reap
  [[nodiscard]] pid_t controller_pid() const { return pid_; }
  [[nodiscard]] std::vector<Fd>& files() { return files_; }
  [[nodiscard]] const LaunchPlan& plan() const { return plan_; }

 private:
  [[nodiscard]] Result<controller::Reply> exchange(const controller::Request& request, int timeout_ms,
                                                   std::span<const int> files);
  [[nodiscard]] Result<controller::FromController> receive(int timeout_ms);
  LaunchPlan plan_;
  pid_t pid_ = 0;
  bool is_killed_ = false;
  SocketFd channel_;
  Daemon daemon_ = Daemon::kPlaces;
  std::uint32_t serial_ = 0;
  std::vector<controller::Note> notes_;
  std::vector<Fd> files_;
};

// The privileged half of a controller (driver/controller/stem.h), by its name, which it gives itself as its first act:
// nobody waits for that at a start. 0: none came.
[[nodiscard]] pid_t stem_of(pid_t controller);
// Reads until `text` was seen or the time is over; everything read.
[[nodiscard]] std::string read_until(const Fd& fd, const std::string& text, int timeout_ms = 10'000);
// Everything of the machine that a domain could leave behind: mounts, groups, links, processes of the test's ids.
[[nodiscard]] std::string snapshot();
// Polls until `path` exists in the tree (a script's sign), at most 10 s.
[[nodiscard]] bool wait_for(const RootTree& tree, const std::string& name);

}  // namespace virtuserns::test
