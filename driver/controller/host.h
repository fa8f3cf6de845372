// What the controller holds of the host for one domain: groups, sources of mounts, directories for its few files.
//
// prepare() carries out LaunchPlan::before and moves the process into the stage: a tmpfs that is its whole file system
// from then on, with the sources as mounts below /src. No host path resolves afterwards; what is still needed of the
// host is a descriptor in here. So nothing of the host's tree is pinned but the sources, a host unmount (Nova unmounts
// the root right after the start) goes through, and a hostile path has nothing to lead to.
#pragma once

#include <sys/stat.h>

#include <map>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/host_file.h"
#include "driver/controller/plan.h"
#include "driver/controller/storage.h"
#include "driver/kernel/cgroup.h"

namespace virtuserns::controller {

inline constexpr const char* kTreePath = "/tree";  // where the container's tree is built at every boot
inline constexpr const char* kNullPath = "/null";  // the host's /dev/null, for masks
// Where a mount is put together that goes into a container that runs (plug_mounts.h): a directory, a file, a directory with devices.
inline constexpr const char *kPlugFolder = "/plug", *kPlugFile = "/plug-file", *kPlugNodes = "/plug-nodes";
inline constexpr const char* kLoosePath = "/loose";  // where loose mounts wait for init
inline constexpr const char* kEmptyPath = "/empty";  // an empty read-only directory, for masks

struct Source {
  std::string place;  // "/src/3"; empty: an optional one that the host does not have
  bool is_image = false, is_overlay = false;
  struct stat facts {};  // of what is there
  [[nodiscard]] bool is_directory() const { return S_ISDIR(facts.st_mode); }
};

struct Host {
  DirFd proc;           // the host's procfs
  NsFd pid_ns, net_ns;  // our own, to come back to; no pid_ns: whoever leaves ours cannot
  SocketFd network;     // of the domain's network keeper (network.h), if it has one
  std::vector<kernel::Cgroup> groups;
  std::map<std::uint32_t, Source> sources;
  std::vector<StorageDaemon> storage;
  std::vector<Fd> overlay_locks;
  HostFile socket, plug, exit_record, stage;
  std::vector<HostFile> console_logs;    // parallel to LaunchPlan::consoles; empty name: none
  std::vector<HostFile> terminal_names;  // of those that have a terminal of the host: links to it
  std::vector<Fd> terminals;             // their masters, parallel to LaunchPlan::consoles; the console takes it

  // Fills in `host` step by step, so that after a failure release() undoes exactly what was made.
  [[nodiscard]] static Result<void> prepare(const LaunchPlan& plan, Host& host);
  // One more source, at /src of the stage, which is the caller's root: `mount`, under an id that none has. forget_source: the reversal.
  [[nodiscard]] Result<std::uint32_t> add_source(const MountFd& mount);
  void forget_source(std::uint32_t id);
  // All that is open, for a process that is to have nothing else.
  [[nodiscard]] std::vector<int> descriptors() const;
  // Keeps what supervising reads: procfs and the groups. A directory of the host leads to all of it by "..".
  void keep_only_views();
  // Kills what is in the groups, removes them, unmounts images and overlays and ends what serves them, removes the socket and the stage's
  // directory.
  [[nodiscard]] Result<void> release();
  [[nodiscard]] const kernel::Cgroup* find_group(const std::string& controller) const;
  // The group through which the domain is frozen: v1's freezer when there is one, else the v2 group.
  [[nodiscard]] const kernel::Cgroup* freezer() const;
};

// A directory or a file of the stage goes.
void remove_place(const std::string& path);
// What a plan names of the host, opened as prepare() does it: detached mounts, in order. Sources of directories and devices alone:
// images and overlays need what lives as long as the domain. `plan`: its maps and ids.
[[nodiscard]] Result<std::vector<MountFd>> open_sources(const LaunchPlan& plan);

}  // namespace virtuserns::controller
