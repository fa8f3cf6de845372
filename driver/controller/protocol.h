// What daemon and controller say to each other: SOCK_SEQPACKET, one XDR message a packet, descriptors by SCM_RIGHTS.
//
// At start the daemon passes: descriptor 3 the plan (the end of a pipe; a file will do), descriptor 4 a socketpair that
// becomes the first connection, 5.. the files for init; argv: virtuserns-controller <name> (the name is for ps only). It
// closes everything else, and posix_spawns; the controller makes itself a session leader. The plan may come later than the
// controller: one that gets none before the pipe's end leaves without a word.
// When the plan names a scope of systemd, the first packet on the channel is the daemon's Placed, and the controller makes
// no group before.
// Later daemons connect to LaunchPlan::socket_path (only uid 0, or the controller's own uid, is accepted). The newest
// connection gets the notes. When it connects it asks Status and then Acks what it has seen.
//
// Controller -> daemon, unasked: Note. Daemon -> controller: Request; each gets one Reply with the same serial.
// `virtuserns-controller --reap` with a plan on descriptor 3 cleans up after a dead controller: kills what is left in
// the cgroups, removes them, the socket and the stage; idempotent; exit status 0 when nothing is left.
// `virtuserns-controller --open` opens sources for a running domain (plug.h).
// `virtuserns-controller --explain` prints describe(plan).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "conf/base/packet.h"
#include "conf/base/xdr.h"
#include "conf/exec.h"

namespace virtuserns::controller {

// A controller and its privileged half (stem.h), as ps(1) shows them.
inline constexpr const char *kControllerName = "virtuserns-ctl", *kStemName = "virtuserns-stem",
                            *kKeeperName = "virtuserns-net";
inline constexpr int kPlanFd = 3, kChannelFd = 4, kFirstPassedFd = 5;

// Called by the controller: all of what is on kPlanFd, once its writer has closed it; at most 4 MiB.
[[nodiscard]] Result<std::vector<std::uint8_t>> read_plan_bytes();

struct WireError {
  std::int32_t code = 0, sys_errno = 0;
  std::string text;
};

// Why a domain ended.
enum class ExitCause : std::int32_t { kPoweroff, kReboot, kExited, kKilled, kDestroyed, kRebootFailed };

struct ExitRecord {  // also the content of LaunchPlan::exit_record_path
  ExitCause cause = ExitCause::kExited;
  std::int32_t wait_status = 0;  // of init
  std::uint64_t time_ms = 0;     // CLOCK_REALTIME
  std::uint64_t boots = 0;
  std::string error;  // kRebootFailed: why
};

struct BootRecord {
  std::int32_t init_pid = 0;          // in the host's pid namespace
  std::uint64_t init_start_time = 0;  // field 22 of /proc/PID/stat: init_pid cannot be taken for another's
  std::uint64_t boots = 0;            // 1 for the first
  std::uint64_t time_ms = 0;
  std::vector<std::string> host_links;  // one for each VethStep and LentLinkStep in order: the name it was given
};

// ---- notes ----
struct StartedNote {
  BootRecord boot;
};  // the outcome: init was exec'd
struct FailedNote {
  WireError error;
};  // the outcome: nothing is left; the controller exits
struct RebootedNote {
  std::uint64_t sequence = 0;
  BootRecord boot;
};
struct EndedNote {
  std::uint64_t sequence = 0;
  ExitRecord record;
};  // everything is cleaned up; the controller exits
using Note = std::variant<StartedNote, FailedNote, RebootedNote, EndedNote>;

// ---- before the outcome: daemon -> controller, when a step of the plan names a scope ----
struct Placed {
  std::uint32_t version = 1;
};  // systemd has put the controller into its scope

// ---- requests ----
struct StatusRequest {};
struct AckRequest {
  std::uint64_t sequence = 0;
};
// SIGKILL to init through its pidfd, wait, clean up. Reply when all is gone; then the controller exits. Also works
// on a frozen domain and with an init that ignores every signal.
struct DestroyRequest {};
struct FreezeRequest {
  bool freeze = true;
};  // replies when the state is reached
struct SignalRequest {
  std::int32_t inside_pid = 1;
  std::int32_t signal = 0;
};
// Ask init to go down or reboot in the way its kind understands (design: row B2): systemd SIGRTMIN+4 / SIGRTMIN+5
// (poweroff / reboot), busybox SIGUSR2 / SIGTERM, sysvinit SIGPWR.. or /run/initctl, anything else SIGTERM... The kind
// is told by what init's executable and name are at the time of asking, read safely.
enum class ShutdownWay : std::int32_t { kAny, kInitctl, kSignal };
struct ShutdownRequest {
  bool reboot = false;
  ShutdownWay way = ShutdownWay::kAny;
};
struct ResetRequest {};  // kill init and boot again at once
struct ConsoleRequest {
  std::uint32_t port = 0;
  bool force = false;
};                            // reply carries one descriptor (stream socket)
struct NamespacesRequest {};  // reply carries six: user, ipc, uts, net, pid, mnt
struct CgroupWriteRequest {
  struct Write {
    std::string controller, file, value;
  };
  std::vector<Write> writes;
};
struct PolicyRequest {
  bool restart_on_reboot = true;
};
struct AddressesRequest {};  // links and addresses seen inside
// Runs a command inside. The reply comes when it was exec'd or could not be, with our end of the socket that conf/exec.h
// speaks of, then the far ends of stdin, stdout and stderr, or the terminal's master.
struct ExecRequest {
  ExecDef command;
};
struct Request {
  std::uint32_t serial = 0;
  std::variant<StatusRequest, AckRequest, DestroyRequest, FreezeRequest, SignalRequest, ShutdownRequest, ResetRequest,
               ConsoleRequest, NamespacesRequest, CgroupWriteRequest, PolicyRequest, AddressesRequest, ExecRequest>
      body;
};

// ---- replies ----
struct StatusReply {
  BootRecord boot;
  bool is_frozen = false;
  std::uint64_t last_sequence = 0;
  std::vector<Note> unacknowledged;
};
struct AddressesReply {
  struct Address {
    std::vector<std::uint8_t> bytes;
    std::uint32_t prefix = 0;
  };
  struct Link {
    std::string name, hardware_address;
    std::vector<Address> addresses;
  };
  std::vector<Link> links;
};
struct ExecReply {
  std::int32_t status = 0;  // 0: it runs; else as exec_status_of, and `text` says why
  std::string text;
};
struct EmptyReply {};
struct Reply {
  std::uint32_t serial = 0;
  std::variant<EmptyReply, WireError, StatusReply, AddressesReply, ExecReply> body;
};

// Everything on the channel from controller to daemon.
using FromController = std::variant<Note, Reply>;

// Messages are packets of conf/base/packet.h.
using virtuserns::recv_packet;
using virtuserns::send_packet;

}  // namespace virtuserns::controller
