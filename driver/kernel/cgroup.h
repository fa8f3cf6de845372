// Control groups: one group in one hierarchy, v1 or v2, held by directory handles. What differs between the versions is
// in cgroup_v1.cpp and cgroup_v2.cpp; callers never ask which one it is except to choose how a child gets in.
#pragma once

#include <sys/types.h>

#include <array>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct CgroupSpec {
  std::string mount;  // "/sys/fs/cgroup/memory"; empty, with is_v2: cgroup2 where it is mounted nowhere
  bool is_v2 = false;
  std::vector<std::string> controllers;
  std::string path;  // below the mount, no leading '/'
};

enum class FreezerState { kThawed, kFreezing, kFrozen };

class Cgroup {
 public:
  // Makes the group and its missing parents. One that exists and is empty is made anew, so that no setting of an
  // earlier life stays; one with processes is an error. The caller removes it (remove); parents are kept.
  [[nodiscard]] static Result<Cgroup> make(const CgroupSpec& spec);
  // ENOENT in Error::sys_errno when there is none.
  [[nodiscard]] static Result<Cgroup> open(const CgroupSpec& spec);

  [[nodiscard]] bool is_v2() const { return spec_.is_v2; }
  [[nodiscard]] bool has_controller(const std::string& name) const;
  [[nodiscard]] const DirFd& dir() const { return dir_; }
  // All that it has open; -1 for what it has not.
  [[nodiscard]] std::array<int, 4> descriptors() const {
    return {parent_.get(), dir_.get(), freeze_.get(), events_.get()};
  }
  [[nodiscard]] const CgroupSpec& spec() const { return spec_; }

  [[nodiscard]] Result<void> write(const std::string& file, const std::string& value) const;
  // For several writes to one file, each of them a write(2).
  [[nodiscard]] Result<Fd> open_for_writing(const std::string& file) const;
  [[nodiscard]] Result<std::string> read(const std::string& file) const;
  // v2: the group itself and the files that a delegatee needs (cgroups(7), "Cgroups delegation"). Never the limits. The
  // directory is the delegatee's from then on, who may close it to others: what freezer_state reads stays open.
  [[nodiscard]] Result<void> delegate(uid_t uid, gid_t gid);
  // `tasks` (v2: cgroup.procs), into which a single-threaded process writes "0" to come in; on v1 that is 4 times cheaper
  // than by pid.
  [[nodiscard]] Result<Fd> open_tasks() const;

  [[nodiscard]] Result<std::vector<pid_t>> processes() const;  // of this group alone
  // SIGKILL to every process in the group and below, and thaw, as a frozen process does not die on v1.
  void kill_all() const;
  // SIGKILL to those that are in the group now, by pidfd. The group stays usable: one whose cgroup.kill was written can
  // no more be the target of CLONE_INTO_CGROUP on some kernels (6.18 kills the newborn: its kill_seq was read from the
  // parent's group).
  void kill_present() const;
  // For another life in the same group: kill_present, and of a v2 group the groups below and what it hands on to them,
  // since nobody can be born into a group that hands controllers on (cgroup-v2.rst, "No Internal Process Constraint").
  void clear() const;
  // One attempt to rmdir what is below and the group. True when it is gone.
  [[nodiscard]] bool try_remove();

  [[nodiscard]] bool can_freeze() const;
  [[nodiscard]] Result<void> set_frozen(bool is_frozen) const;
  [[nodiscard]] Result<FreezerState> freezer_state() const;

 private:
  Cgroup(CgroupSpec spec, DirFd parent, std::string name, DirFd dir)
      : spec_(std::move(spec)), parent_(std::move(parent)), name_(std::move(name)), dir_(std::move(dir)) {}
  CgroupSpec spec_;
  DirFd parent_;
  std::string name_;
  DirFd dir_;
  Fd freeze_, events_;  // of a group that was given away
};

// Kills what is in the groups and removes them, newest first. Waits for the kernel at most `timeout_ms` while nothing ends,
// and kMostRemovalMs in all: thousands of processes take their time to end on a busy machine.
inline constexpr int kMostRemovalMs = 120'000;
[[nodiscard]] Result<void> remove_cgroups(std::vector<Cgroup>& groups, int timeout_ms);

// What cgroup_v1.cpp and cgroup_v2.cpp supply.
namespace v1 {
[[nodiscard]] Result<void> prepare_child(const CgroupSpec& spec, const DirFd& parent, const DirFd& child);
void kill_processes(const DirFd& dir);
[[nodiscard]] Result<FreezerState> parse_freezer_state(const std::string& text);
}  // namespace v1
namespace v2 {
[[nodiscard]] Result<void> prepare_parent(const CgroupSpec& spec, const DirFd& parent);
void kill_processes(const DirFd& dir);
[[nodiscard]] Result<FreezerState> parse_events(const std::string& text, bool is_wanted);
}  // namespace v2

[[nodiscard]] Result<std::vector<pid_t>> parse_pids(const std::string& text);

}  // namespace virtuserns::kernel
