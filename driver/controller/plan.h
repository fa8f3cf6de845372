// LaunchPlan: everything the controller needs to start one domain, as plain data. Made by userns::make_plan (pure),
// carried out by virtuserns-controller, which parses no XML and takes no decision that is not written here.
//
// Three ordered lists:
//   before       once in the controller's life, as host root, before any clone: cgroups and their limits; every
//                source of a mount or device is opened on the host here and kept, so a later unmount on the host or a
//                reboot of the container does not matter.
//   from_parent  at every boot, by the controller as host root, while the child waits at the gate: id maps, links,
//                the tree of mounts (built in the controller's own mount namespace, so that the child inherits every
//                mount locked), /proc and /sys of the child's namespaces.
//   inside       at every boot, by the child as container root, after the gate has opened: network addresses,
//                hostname, the private mount namespace and pivot, limits, capabilities, seccomp, exec.
//
// Order of one boot (each kernel rule is explained where it is obeyed, driver/controller/boot.cpp):
//   1. controller forks the starter into the cgroups (v2: CLONE_INTO_CGROUP; v1: it writes "0" into pre-opened
//      `tasks`), which drops to host_uid:host_gid with no supplementary groups and only then clones init into new
//      user, pid, net, uts, ipc and cgroup namespaces (CLONE_PARENT: init is the controller's child), so that the
//      namespaces belong to the domain's own host uid.
//   2. from_parent, in order. 3. gate. 4. inside, in order; the last step is exec. One outcome comes back.
//
// Paths named *_source are host paths; *_target and every path in `inside` are container paths and are only ever
// resolved by openat2(2) with RESOLVE_IN_ROOT below the root's descriptor.
//
// The wire form is XDR by conf/base/xdr.h; version it by kPlanVersion. Sizes are bounded by the decoder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "conf/base/xdr.h"
#include "conf/device_rules.h"
#include "conf/idmap.h"
#include "conf/system_calls.h"
#include "conf/uuid.h"

namespace virtuserns {

inline constexpr std::uint32_t kPlanVersion = 10;

// ---- before -------------------------------------------------------------------------------------------------------

enum class OwnerShift { kIdmappedMount, kAlreadyShifted };

struct FileWrite {
  std::string file, value;
};

// mkdir of `path` (relative to the hierarchy; parents are made and kept), then the writes, before anyone is inside.
// A write that fails fails the start unless is_optional. Undo: kill what is inside, rmdir.
struct CgroupStep {
  std::string mount;  // "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"; empty, with is_v2: mounted nowhere
  bool is_v2 = false;
  std::vector<std::string> controllers;  // "memory"; for v2 those to enable in the parents' cgroup.subtree_control
  std::string path;                      // "machine/virtuserns-<uuid>"
  std::vector<FileWrite> writes;
  // Present: only these devices (kernel::limit_devices). Of v1 the hierarchy with the devices controller, else v2's group.
  std::optional<std::vector<DeviceRule>> device_rules;
  bool is_optional = false;
  bool delegate = false;  // v2: cgroup.procs, .threads, .subtree_control and the directory to container root
  // Not empty: the parent of `path`, which systemd makes and removes: the controller waits until it is in there
  // (driver/controller/scope.h). On v2 it goes on to `supervisor` beside `path`, since a group that hands controllers on
  // may have no process of its own.
  std::string scope;
};

// Opens a directory and keeps it under `id`, which mount steps name: an open_tree(2) clone (recursive when asked).
//
// user: the source of a domain that this host user owns. The path is followed as that user, without groups, and
// without links of /proc; what it leads to must be a directory of an ordinary file system that belongs to the user or to an id of
// the domain, and the root of the tree to the domain's own root. So whoever writes the path gets nothing by it that is not theirs.
struct SourceUser {
  std::uint32_t uid = 0, gid = 0;
};
struct SourceStep {
  std::uint32_t id = 0;
  std::string host_source;
  bool is_recursive = false;
  bool is_readonly = false;
  std::optional<SourceUser> user = std::nullopt;
};

// What reads images, each in a jail (driver/controller/jail.h). Before the first ImageSourceStep, in plans that have one.
struct ImageHelpersStep {
  std::string prober;                // virtuserns-image
  std::string storage_daemon;        // qemu-storage-daemon; empty: every image is raw
  std::vector<std::uint8_t> filter;  // of their system calls, as SeccompStep::program
};

struct ImageFile {
  std::string path, format;
};
// The file system in an image, or on a block device, kept under `id` (driver/controller/image.h).
struct ImageSourceStep {
  std::uint32_t id = 0;
  bool is_block = false;
  std::vector<ImageFile> chain;    // the image; then, of an overlay, what lies below it, one after the other
  std::uint32_t partition = 0;     // 0: not by a partition
  std::uint64_t offset_bytes = 0;  // where it begins
  std::uint64_t size_bytes = 0;    // 0: to the end
  std::string subvolume;
  bool is_readonly = false;
};

// An overlay, kept under `id` (driver/controller/overlay.h): what is written goes to `own`, in which `upper` and `work` are made when
// they are missing, and which is one running domain's alone; what is below is only read.
struct OverlayLayer {
  std::string host_source;
  OwnerShift shift = OwnerShift::kIdmappedMount;
};
struct OverlaySourceStep {
  std::uint32_t id = 0;
  OverlayLayer own;
  std::vector<OverlayLayer> lowers;  // from the top to the bottom
  bool has_user_xattrs = false;  // its marks are user.overlay.*: root of the machine alone writes trusted.overlay.*
};

// A host device node (character or block) kept under `id` as a mount, for DeviceNodeStep.
struct DeviceSourceStep {
  std::uint32_t id = 0;
  std::string host_source;   // "/dev/null"
  bool is_optional = false;  // a host without /dev/fuse is no error
};

using BeforeStep =
    std::variant<CgroupStep, SourceStep, DeviceSourceStep, ImageHelpersStep, ImageSourceStep, OverlaySourceStep>;

// ---- from_parent --------------------------------------------------------------------------------------------------

// Writes uid_map and gid_map of the child (host root: one write each; setgroups stays allowed).
struct IdMapStep {
  IdMaps maps;
};

// The root of the tree. kIdmappedMount uses the child's own user namespace (mount_setattr(2)).
struct RootStep {
  std::uint32_t source_id = 0;
  OwnerShift shift = OwnerShift::kIdmappedMount;
  bool is_readonly = false;
};

// A source at a target; missing target directories (or an empty file, when the source is none) are made, owned by
// container root. read-only includes every mount below, or the start fails (bug X1 of libvirt's driver).
//
// is_loose, of this and of others: plugged in while the domain ran (plugs.h), or a disk. Not built into the tree, where the kernel would lock it, but
// set aside, and put into its place by init: it can be taken away again.
struct BindStep {
  std::uint32_t source_id = 0;
  std::string target;
  OwnerShift shift = OwnerShift::kIdmappedMount;
  bool is_readonly = false;
  bool is_loose = false;
};

// type='bind': a directory of the container at another of its places.
struct InnerBindStep {
  std::string source, target;
  bool is_readonly = false;
};

struct TmpfsStep {
  std::string target;
  std::uint64_t size_bytes = 0;
  std::uint32_t mode = 0755;
  bool is_readonly = false;
  bool is_loose = false;
};

// /dev: tmpfs owned by container root, standard symlinks (fd, stdin, stdout, stderr, core, ptmx -> pts/ptmx), shm and
// mqueue directories, devpts (new instance, ptmxmode 0666, gid: the container's group 5 if mapped, else container
// root), and for each console a pty of that instance: /dev/console is the first, /dev/tty1.. and /dev/pts/N follow.
// pts_gid: as the container counts.
struct DevStep {
  std::uint64_t size_bytes = 65536;
  std::uint32_t console_count = 1;
  std::optional<std::uint32_t> pts_gid;
};

// A node kept by DeviceSourceStep, bound over an empty file at `target` ("/dev/null").
struct DeviceNodeStep {
  std::uint32_t source_id = 0;
  std::string target;
  bool is_loose = false;
};

// /proc of the child's pid namespace, mounted from outside (recipe of docs/security.md), then `readonly` paths bound
// read-only, `writable` ones exempt, `masked` ones covered (files by /dev/null, directories by an empty read-only
// tmpfs). A path that does not exist is skipped.
//
// is_also_bare, of this and the next: once more without any of that, below kBareFolder.
// The kernel lets nobody who is not the machine's root mount a /proc or /sys that shows more than one that can be seen already
// (user_namespaces(7)): for a container in which containers are to run.
struct ProcStep {
  std::vector<std::string> masked, readonly, writable;
  bool is_also_bare = false;
};
// /sys of the child's network namespace, read-only, with masks.
struct SysStep {
  std::vector<std::string> masked;
  bool is_also_bare = false;
};
inline constexpr const char* kBareFolder = ".virtuserns";  // in /dev
// cgroup2 of the child's cgroup namespace at /sys/fs/cgroup (only when CgroupStep::delegate made that safe).
struct CgroupMountStep {
  std::string target = "/sys/fs/cgroup";
  bool is_readonly = false;
};
// mqueue of the child's ipc namespace.
struct MqueueStep {
  std::string target = "/dev/mqueue";
};

// A veth whose peer is born inside the child's network namespace; never moved, never deleted by us: it dies with the
// namespace. host_name may be a pattern ("vnet%d"): the kernel picks, the outcome tells.
struct VethStep {
  std::string host_name, guest_name;
  std::array<std::uint8_t, 6> guest_mac{};
  std::string bridge;  // empty: no master (type='ethernet')
  std::optional<std::uint32_t> mtu;
  bool is_up = true;
};
// macvlan born inside (type='direct').
struct MacvlanStep {
  std::string host_device, guest_name, mode;
  std::array<std::uint8_t, 6> mac{};
};
// A host device that moves in (hostdev type='net') and comes back when the namespace dies.
struct MoveLinkStep {
  std::string host_device, guest_name;
};

// passt between the host's network and a tap inside (pasta.h), by the domain's network keeper (network.h). Its ports lead from
// `host` ("192.0.2.1%eth0", or empty: any) into the container.
struct PortStep {
  bool is_udp = false;
  std::string host;
  std::uint32_t host_port = 0, guest_port = 0;
};
struct UserLinkStep {
  std::string guest_name;
  std::array<std::uint8_t, 6> guest_mac{};
  std::string host_device;  // whose routes and addresses it shares; empty: that of the default route
  std::optional<std::uint32_t> mtu;
  bool is_up = true;
  std::string address, gateway;  // of IPv4, "192.0.2.2"; empty: the host's
  std::uint32_t prefix = 0;
  std::string address6, gateway6;
  std::vector<PortStep> ports;
  std::string log_file;
};

// As VethStep, but made by the daemon of the system: a session has no privileges on the host. The domain's network keeper asks
// its link broker (driver/links), which also gives the host's end its name.
struct LentLinkStep {
  std::string broker;  // its socket
  std::string guest_name;
  std::array<std::uint8_t, 6> guest_mac{};
  std::string bridge;
  std::optional<std::uint32_t> mtu;
  bool is_up = true;
};

using ParentStep =
    std::variant<IdMapStep, RootStep, BindStep, InnerBindStep, TmpfsStep, DevStep, DeviceNodeStep, ProcStep, SysStep,
                 CgroupMountStep, MqueueStep, VethStep, MacvlanStep, MoveLinkStep, UserLinkStep, LentLinkStep>;

// ---- inside -------------------------------------------------------------------------------------------------------

struct LinkUpStep {
  std::string device;
};  // "lo" first
struct AddressStep {
  std::string device;
  std::vector<std::uint8_t> address;
  std::uint32_t prefix = 0;
  std::vector<std::uint8_t> peer;
};
struct RouteStep {
  std::string device;                 // may be empty when a gateway decides
  std::vector<std::uint8_t> network;  // 4 or 16 bytes
  std::uint32_t prefix = 0;
  std::vector<std::uint8_t> gateway;  // empty: on link
  std::optional<std::uint32_t> metric;
};
struct HostnameStep {
  std::string name;
};
// unshare(CLONE_NEWNS): the copy has every mount of the controller's locked; then pivot into the tree.
struct PivotStep {};
// New session, controlling terminal and stdio = the first console; a new session keyring.
struct ConsoleStep {};
struct RlimitStep {
  std::int32_t resource = 0;
  std::uint64_t soft = 0, hard = 0;
};
struct PersonalityStep {
  std::uint64_t persona = 0;
};  // PER_LINUX32 for i686
// Bounding, permitted, effective, inheritable and ambient sets become `bounding` ∩ what there is (inheritable and
// ambient: empty). Bits by number, linux/capability.h.
struct CapabilitiesStep {
  std::uint64_t bounding = 0;
  bool no_new_privs = false;
};
// A compiled filter (struct sock_filter array, 8 bytes each, native byte order). Installed last before exec. is_logged:
// calls that it answers with EPERM are told in the domain's log, by the names of `refusable`.
struct SeccompStep {
  std::vector<std::uint8_t> program;
  bool is_logged = false;
  std::vector<CallName> refusable;
};
// The profile of AppArmor that init, and every command that comes later, gets at its exec. Whoever starts them asks for it
// while still outside, where nothing of the container can answer in the kernel's place.
struct ApparmorStep {
  std::string profile;
};
struct UserStep {
  std::string user, group;
};  // <inituser>, <initgroup>: names from the container's own files or "+N"
struct ExecStep {
  std::string path;
  std::vector<std::string> argv, env;
  std::string directory;           // empty: "/"
  std::uint32_t passed_files = 0;  // descriptors 3.. that init keeps
};

using InsideStep = std::variant<LinkUpStep, AddressStep, RouteStep, HostnameStep, PivotStep, ConsoleStep, RlimitStep,
                                PersonalityStep, CapabilitiesStep, SeccompStep, UserStep, ExecStep, ApparmorStep>;

// ---- the whole ----------------------------------------------------------------------------------------------------

enum class AfterExit { kDestroy, kRestart };  // what <on_poweroff>, <on_reboot>, <on_crash> come to

struct ConsolePlan {
  std::uint32_t port = 0;
  std::string log_file;
  bool log_append = true;
  std::string terminal_path;  // becomes a link to a terminal of the host that leads to this console; empty: none
};

struct LaunchPlan {
  std::uint32_t version = kPlanVersion;
  std::string name;
  std::array<std::uint8_t, 16> uuid{};
  std::uint32_t host_uid = 0, host_gid = 0;  // the domain's own: the targets of container root
  std::string socket_path;                   // where the controller listens for the next daemon
  std::string plug_path;                     // where its stem listens (plug.h); empty: nowhere
  std::string exit_record_path;              // written when the domain ends (protocol.h, ExitRecord)
  std::string stage_path;                    // an existing empty directory: becomes the controller's root
  std::vector<ConsolePlan> consoles;
  // poweroff, reboot, crash
  AfterExit after_poweroff = AfterExit::kDestroy, after_reboot = AfterExit::kRestart,
            after_crash = AfterExit::kDestroy;
  std::vector<BeforeStep> before;
  std::vector<ParentStep> from_parent;
  std::vector<InsideStep> inside;
};

// One line per step, in order: what golden tests compare and `virtuserns-controller --explain` prints.
[[nodiscard]] std::string describe(const LaunchPlan& plan);
[[nodiscard]] std::vector<std::uint8_t> encode_plan(const LaunchPlan& plan);
[[nodiscard]] Result<LaunchPlan> decode_plan(std::span<const std::uint8_t> bytes);

}  // namespace virtuserns
