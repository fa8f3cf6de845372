// The privileged half of a controller.
//
// From the moment the container runs, the controller reads bytes that it wrote, of its terminals, refused calls and
// commands, and those of whoever uses them. A mistake in there must not be a mistake of host root's. So, just before
// init's first exec, it forks: the fork, the stem, keeps the privileges and waits for requests; the controller
// gives up its own (cage.h) and asks. The vocabulary is this header. Nothing in it names a path of the host, a process that
// is not of this domain, or a file of its groups that is no limit. Of devices that come and go it hears from the daemon (plug.h).
//
// The stem is one child more of the controller, in none of the container's groups, with no descriptor of anybody the
// controller talks to. What it makes (starters, inits, joiners) are children of the controller, which waits for them. The
// two live and die together: without the controller the stem is killed, without the stem the controller leaves, and either
// takes the container along. It has no filter of its own: its children would inherit it and be refused by it before their
// own filter could tell (docs/decisions/0014).
#pragma once

#include <span>
#include <string_view>
#include <variant>

#include "driver/controller/boot.h"
#include "driver/controller/protocol.h"
#include "driver/controller/shutdown.h"

namespace virtuserns::controller {

// Commands at a time. The controller counts them for those who ask; the stem counts joiners for itself, until they are reaped.
inline constexpr std::size_t kMaxCommands = 64;

// ---- what it is asked ----
struct TidyAsk {};  // unmount the tree, of which the container has its own copy. No reply
struct BootAsk {
};  // end what is left of the last boot, which succeeded and whose processes were reaped, and begin another; Booted
struct KillAsk {};  // init, also a frozen one. No reply
struct FreezeAsk {
  bool freeze = false;
};
struct SignalAsk {  // a process of the container by its pid inside
  std::int32_t inside_pid = 0, signal = 0;
};
struct SignalChildAsk {  // a child of the controller; or its process group, whose leader it is
  std::int32_t pid = 0, signal = 0;
  bool is_group = false;
};
struct ShutDownAsk {
  ShutdownRequest request;
};
struct NamespacesAsk {};  // six descriptors, as NamespacesRequest
struct WriteGroupsAsk {
  CgroupWriteRequest request;
};
struct AddressesAsk {};
struct EnterAsk {  // with the channel of a joiner (enter.h), and with the program that was brought along; Joined
  ExecDef command;
};
struct RotateLogAsk {  // of a console: one descriptor, of the new and empty one
  std::uint32_t console = 0;
};
struct ReleaseAsk {  // end everything of the domain, and say so in the exit record; the stem leaves
  ExitRecord record;
};
using StemAsk = std::variant<TidyAsk, BootAsk, KillAsk, FreezeAsk, SignalAsk, SignalChildAsk, ShutDownAsk,
                             NamespacesAsk, WriteGroupsAsk, AddressesAsk, EnterAsk, RotateLogAsk, ReleaseAsk>;

// ---- what it answers ----
struct Done {};
// With the gate, init and its starter; then the masters of its consoles, in further packets (Done) that are full but the last.
struct Booted {
  BootRecord record;
  std::uint32_t consoles = 0;
};
struct Joined {  // with its pidfd
  std::int32_t pid = 0;
};
struct ShutDownAsked {
  bool is_to_end = false;
};
using StemAnswer = std::variant<Done, WireError, Booted, Joined, ShutDownAsked, AddressesReply>;

// The controller's end.
class Stem {
 public:
  struct Joiner {
    pid_t pid = 0;
    PidFd process;
  };

  // Forks. `boot` waits at its gate. Until the first request everything else may still fail and release the host itself.
  // `plugs`: where the stem is to listen (plug.h), or empty; the caller's copy is closed.
  [[nodiscard]] static Result<Stem> grow(LaunchPlan& plan, Host& host, const std::vector<Fd>& passed_files,
                                         const Boot& boot, SocketFd plugs);
  Stem() = default;
  explicit operator bool() const { return static_cast<bool>(socket_); }
  // It has left without having been asked to; and then whoever asked it heard nothing.
  [[nodiscard]] bool is_gone() const;
  // Becomes readable when the stem is gone, and never else while nobody asks.
  [[nodiscard]] const Fd& socket() const { return socket_; }

  void tidy() const;
  [[nodiscard]] Result<Waiting> boot() const;
  void kill() const;
  [[nodiscard]] Result<void> freeze(bool is_frozen) const;
  [[nodiscard]] Result<void> signal_inside(std::int32_t inside_pid, int signal) const;
  void signal_child(pid_t pid, int signal) const;
  void signal_group(pid_t leader, int signal) const;
  [[nodiscard]] Result<Asked> ask_to_shut_down(const ShutdownRequest& request) const;
  [[nodiscard]] Result<std::vector<Fd>> namespaces() const;
  [[nodiscard]] Result<void> write_groups(const CgroupWriteRequest& request) const;
  [[nodiscard]] Result<AddressesReply> addresses() const;
  [[nodiscard]] Result<Joiner> enter(const ExecDef& command, const Fd& program, const SocketFd& channel) const;
  [[nodiscard]] Fd rotate_log(std::uint32_t console) const;  // empty: not to be had
  // An error says what could not be cleaned up. The stem leaves afterwards.
  [[nodiscard]] Result<void> release(const ExitRecord& record);
  void await_end() const;  // after release

 private:
  struct Answer {
    StemAnswer body;
    std::vector<Fd> files;
  };
  Stem(SocketFd socket, PidFd process) : socket_(std::move(socket)), process_(std::move(process)) {}
  [[nodiscard]] Result<Answer> receive() const;
  [[nodiscard]] Result<Answer> ask(const StemAsk& request, std::span<const int> files = {}) const;
  [[nodiscard]] Result<void> tell(const StemAsk& request) const;

  SocketFd socket_;
  PidFd process_;
  mutable bool is_gone_ = false;
};

// For a fork: not to be taken for the controller: neither by ps(1) nor by the daemon's search for its mark (driver/userns/launch.cpp).
// `name_of_fork`: not longer than the controller's own.
void change_name(std::string_view name_of_fork);

// The fork, for Stem::grow. `boot`: the present one.
struct StemSockets {
  SocketFd controller, plugs;
};
[[noreturn]] void run_stem(LaunchPlan& plan, Host& host, const std::vector<Fd>& passed_files, const Boot& boot,
                           const StemSockets& sockets);

}  // namespace virtuserns::controller
