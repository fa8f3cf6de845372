// Probes of a container's walls, run as its root: each tries one thing that must not work and says what came of it.
// Nothing is changed when a wall is missing: files are opened and not written, calls have arguments that the kernel
// refuses after it has let the caller through, mounts are tried in a mount namespace of the probe's own. What cannot be
// tried like this says so in `disturbs`.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace drill {

enum class Outcome { kHeld, kFailed, kNotApplicable, kNotRun };
struct Verdict {
  Outcome outcome = Outcome::kHeld;
  std::string detail;
};
inline Verdict held(std::string detail) { return {Outcome::kHeld, std::move(detail)}; }
inline Verdict failed(std::string detail) { return {Outcome::kFailed, std::move(detail)}; }
inline Verdict not_applicable(std::string detail) { return {Outcome::kNotApplicable, std::move(detail)}; }

// `group`: the class of docs/security.md, A to F. Each runs in a process of its own, which may change itself at will.
struct Probe {
  char group;
  std::string name;
  std::function<Verdict()> run;
  const char* disturbs = nullptr;  // whom it may disturb while it is tried: left out unless all are wanted
};

void add_process_probes(std::vector<Probe>& probes);  // A, C: what a process has and sees
void add_mount_probes(std::vector<Probe>& probes);    // B: masks, locks, ways out of the root
void add_kernel_probes(std::vector<Probe>& probes);   // D: files of /proc and /sys, cgroups, devices
void add_call_probes(std::vector<Probe>& probes);     // D, F: system calls, also of 32-bit programs
void add_network_probes(std::vector<Probe>& probes);  // E, F: namespaces, sockets, terminals

// ---- for probes ----
std::string error_text(int err);
std::string read_text(const std::string& path, std::size_t limit = 65536);  // "" when it cannot be read
std::string link_text(const std::string& path);
std::vector<std::string> names_in(const std::string& directory);
std::vector<std::string> lines_of(const std::string& text);
std::vector<std::string> words_of(const std::string& line);
std::vector<pid_t> processes();
bool is_mapped_uid(uid_t id);
bool is_mapped_gid(gid_t id);
bool is_host_namespace();  // the map of the first user namespace: whatever this is, it is no container of ours
// Of /proc/self/mountinfo.
struct MountLine {
  std::string place, options, type, super_options;
};
std::vector<MountLine> mounts();
// A mount namespace for this process, in which nothing reaches the container; empty or what went wrong.
std::string leave_mounts_alone();
std::string scratch_directory();  // in that namespace: a tmpfs to mount below

}  // namespace drill
