// Commands that somebody runs in the container beside its init (conf/exec.h, virt-userns-exec).
//
// Nothing here blocks: a command may be started in a container whose file systems never answer, and may be held by
// whoever asked for it for as long as they like. Its data does not pass through the controller: whoever asked holds the
// far ends of its pipes or the master of its terminal. The controller holds the process and one socket: signals come in
// by it, the exit status goes out, and its closing hangs the command up.
#pragma once

#include <functional>
#include <map>
#include <span>

#include "driver/controller/consoles.h"
#include "driver/controller/stem.h"

namespace virtuserns::controller {

class Commands {
 public:
  struct Asker {
    std::size_t connection = 0;
    std::uint32_t serial = 0;
  };
  // Called once for each start, at the latest after its time-out.
  using Answer = std::function<void(const Asker&, const Result<ExecReply>&, std::span<const int> files)>;

  // stem and epoll outlive this.
  Commands(const Stem& stem, const Fd& epoll, Answer answer)
      : stem_(stem), epoll_(epoll), answer_(std::move(answer)) {}

  // `program`: see validate_program of conf/exec.h; it has been checked, or is empty.
  void start(const Asker& asker, const ExecDef& command, const Fd& program);
  void on_event(std::size_t index);
  // When something is to be done without an event, or -1.
  [[nodiscard]] std::int64_t next_deadline_ms() const;
  void on_time(std::int64_t now_ms);
  // Init has ended, and with it every process of its pid namespace.
  void end_all();

 private:
  enum class Part : std::uint32_t { kChannel, kJoiner, kProcess, kClient };
  struct Command {
    Asker asker;
    bool is_answered = false, is_about_to_exec = false, is_running = false;
    SocketFd channel;               // of joiner and entrant; closed by the exec
    Stem::Joiner joiner;            // until it is reaped, as
    PidFd process;                  // this one
    pid_t pid = 0;                  // of process, and of its session and process group: ours until it is reaped
    std::optional<int> status;      // it has ended
    std::vector<Fd> files;          // for whoever asked
    SocketFd client;                // our end of their socket
    std::int64_t deadline_ms = -1;  // starting: give up; hung up: SIGKILL
  };

  [[nodiscard]] Result<void> begin(std::uint32_t id, Command& command, const ExecDef& def, const Fd& program);
  void on_channel(std::uint32_t id, Command& command);
  [[nodiscard]] bool on_message(std::uint32_t id, Command& command, Packet packet);
  void on_exec(std::uint32_t id, Command& command);
  void on_process(Command& command);
  void on_client(Command& command);
  void answer(Command& command, const Result<ExecReply>& reply, std::span<const int> files = {});
  void fail_start(Command& command, const Result<ExecReply>& reply);
  void hang_up(Command& command);
  void kill_now(Command& command) const;
  void tell_end(Command& command);
  void signal_group(const Command& command, int signal) const;
  void watch(const Fd& fd, std::uint32_t id, Part part) const;
  void drop(Fd& fd) const;
  void forget_if_over(std::uint32_t id);

  const Stem& stem_;
  const Fd& epoll_;
  Answer answer_;
  std::map<std::uint32_t, Command> commands_;
  std::uint32_t next_id_ = 0;
};

}  // namespace virtuserns::controller
