#include "driver/exec/relay.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>

#include <array>
#include <optional>
#include <string>

#include "conf/exec.h"

namespace virtuserns::exec {

namespace {

constexpr int kForwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
constexpr std::size_t kReadBytes = 64 * 1024;
// The caller's descriptors stay blocking, because others share them: this much never blocks after POLLOUT (pipe(7)).
constexpr std::size_t kWriteBytes = 4096;
constexpr int kDrainMs = 100;   // how long a terminal that others still hold may be silent after the command's end
constexpr char kEndOfFile = 4;  // ^D

bool is_again() { return errno == EAGAIN || errno == EINTR; }

// The caller's terminal as raw, for as long as this lives.
class RawMode {
 public:
  explicit RawMode(bool is_wanted) {
    if (!is_wanted || ::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    ::cfmakeraw(&raw);
    is_set_ = ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
  }
  ~RawMode() {
    if (is_set_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

 private:
  termios before_{};
  bool is_set_ = false;
};

// One direction of bytes. Reads only when everything before is written, so that neither side runs ahead of the other.
class Pump {
 public:
  Pump(int from, int to) : from_(from), to_(to) {}

  [[nodiscard]] bool is_over() const { return is_over_; }
  [[nodiscard]] bool is_empty() const { return at_ == text_.size(); }
  [[nodiscard]] pollfd wanted() const {
    if (is_over_) return {-1, 0, 0};
    if (is_empty()) return {from_, POLLIN, 0};
    return {to_, POLLOUT, 0};
  }
  // True when bytes have moved.
  bool move(short revents) {
    if (is_over_ || revents == 0) return false;
    return is_empty() ? read_some() : write_some();
  }
  // For a terminal, which ends by ^D and not by closing.
  void append_end_of_file() {
    text_ = kEndOfFile;
    at_ = 0;
    is_over_ = false;
    is_last_ = true;
  }

 private:
  bool read_some() {
    if (is_last_) {
      is_over_ = true;
      return false;
    }
    text_.resize(kReadBytes);
    at_ = 0;
    const auto got = ::read(from_, text_.data(), text_.size());
    text_.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    // Also EIO: nobody has the terminal open any more; and EBADF of a caller without such a descriptor.
    if (got == 0 || (got < 0 && !is_again())) is_over_ = true;
    return got > 0;
  }
  bool write_some() {
    const auto written = ::write(to_, text_.data() + at_, std::min(text_.size() - at_, kWriteBytes));
    if (written < 0 && !is_again()) is_over_ = true;  // nobody reads it
    if (written <= 0) return false;
    at_ += static_cast<std::size_t>(written);
    if (is_empty() && is_last_) is_over_ = true;
    return true;
  }

  int from_, to_;
  std::string text_;
  std::size_t at_ = 0;
  bool is_over_ = false, is_last_ = false;
};

class Relay {
 public:
  Relay(std::vector<Fd> fds, bool has_terminal) : fds_(std::move(fds)), has_terminal_(has_terminal) {
    for (const auto& fd : fds_) ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : kForwarded) ::sigaddset(&set, signal);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (has_terminal_)
      pumps_ = {Pump(STDIN_FILENO, fds_[1].get()), Pump(fds_[1].get(), STDOUT_FILENO)};
    else
      pumps_ = {Pump(STDIN_FILENO, fds_[1].get()), Pump(fds_[2].get(), STDOUT_FILENO),
                Pump(fds_[3].get(), STDERR_FILENO)};
  }

  Result<int> run() {
    if (!signals_) return sys_fail("watch signals");
    const RawMode raw(has_terminal_ && ::isatty(STDIN_FILENO) == 1);
    if (has_terminal_) pass_window_size();  // it may have changed since it was asked for
    for (;;) {
      std::vector<pollfd> entries = {{signals_.get(), POLLIN, 0}, {status_ ? -1 : fds_[0].get(), POLLIN, 0}};
      for (const auto& pump : pumps_) entries.push_back(pump.wanted());
      if (status_) entries[2].fd = -1;  // nobody is left who would read
      const int ready = ::poll(entries.data(), entries.size(), patience_ms());
      if (ready < 0 && errno != EINTR) return sys_fail("poll");
      if (ready <= 0) {
        if (status_ && ready == 0) return *status_;
        continue;
      }
      if (entries[0].revents != 0) on_signals();
      if (entries[1].revents != 0) TRY(on_socket());
      for (std::size_t i = 0; i < pumps_.size(); ++i) {
        const bool was_over = pumps_[i].is_over();
        pumps_[i].move(entries[i + 2].revents);
        if (pumps_[i].is_over() && !was_over) on_end_of(i);
      }
      if (status_ && are_outputs_over()) return *status_;
    }
  }

 private:
  // What has been read is written, however long its reader takes; what may still be read, others may have open.
  [[nodiscard]] int patience_ms() const {
    if (!status_) return -1;
    for (std::size_t i = 1; i < pumps_.size(); ++i)
      if (!pumps_[i].is_over() && !pumps_[i].is_empty()) return -1;
    return has_terminal_ ? kDrainMs : 0;
  }

  [[nodiscard]] bool are_outputs_over() const {
    for (std::size_t i = 1; i < pumps_.size(); ++i)
      if (!pumps_[i].is_over()) return false;
    return true;
  }

  // The other side is to notice: end of file for what reads, SIGPIPE for what writes.
  void on_end_of(std::size_t index) {
    if (!has_terminal_) return fds_[index + 1].reset();
    if (index == 0 && !has_sent_end_) {
      has_sent_end_ = true;
      pumps_[0].append_end_of_file();
    }
  }

  void on_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      const auto signal = static_cast<std::int32_t>(info.ssi_signo);
      // The kernel tells whoever is in the terminal's foreground.
      if (signal == SIGWINCH && has_terminal_) {
        pass_window_size();
        continue;
      }
      const auto bytes = xdr::encode(ExecSignal{signal});
      (void)::send(fds_[0].get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }
  }

  void pass_window_size() const {
    const auto size = read_window_size();
    const winsize to{size.rows, size.columns, 0, 0};
    if (size.rows != 0) ::ioctl(fds_[1].get(), TIOCSWINSZ, &to);
  }

  Result<void> on_socket() {
    std::array<std::uint8_t, kMaxExecMessage> buffer{};
    const auto got = ::recv(fds_[0].get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && is_again()) return {};
    if (got <= 0) return fail(VIR_ERR_OPERATION_FAILED, "the domain's controller is gone");
    status_ = TRY(xdr::decode<ExecEnded>(std::span(buffer).first(static_cast<std::size_t>(got)))).wait_status;
    return {};
  }

  std::vector<Fd> fds_;
  bool has_terminal_;
  Fd signals_;
  std::vector<Pump> pumps_;
  std::optional<int> status_;
  bool has_sent_end_ = false;
};

}  // namespace

WindowSize read_window_size() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row != 0) return {size.ws_row, size.ws_col};
  }
  return {};
}

Result<int> relay(std::vector<Fd> fds, bool has_terminal) { return Relay(std::move(fds), has_terminal).run(); }

}  // namespace virtuserns::exec
