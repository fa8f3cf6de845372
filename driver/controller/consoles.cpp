#include "driver/controller/consoles.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <utility>

#include "conf/base/text.h"

namespace virtuserns::controller {

namespace {

constexpr std::size_t kMaxToClient = 64 * 1024;
constexpr std::size_t kMaxToMaster = 4096;
constexpr std::size_t kMaxUnseen = 16 * 1024;
constexpr std::uint64_t kMaxLogBytes = 2 * 1024 * 1024;  // as virtlogd's default; one backup, ".0"
constexpr std::int64_t kRetryMs = 50;
constexpr int kMostReads = 8;  // of one terminal, before others are served

void keep_end(std::string& text, std::size_t max_bytes) {
  if (text.size() > max_bytes) text.erase(0, text.size() - max_bytes);
}

bool is_again() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

std::int64_t monotonic_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

Consoles::Consoles(const LaunchPlan& plan, Host& host, const Fd& epoll, Rotate rotate)
    : epoll_(epoll), rotate_(std::move(rotate)) {
  consoles_.resize(plan.consoles.size());
  for (std::size_t i = 0; i < consoles_.size(); ++i) {
    consoles_[i].port = plan.consoles[i].port;
    if (i < host.terminals.size()) consoles_[i].terminal = std::move(host.terminals[i]);
    if (consoles_[i].terminal) watch_terminal(consoles_[i], EPOLL_CTL_ADD);
    if (i >= host.console_logs.size() || host.console_logs[i].name.empty()) continue;
    auto log = host.console_logs[i].open_log(!plan.consoles[i].log_append);
    if (log) take_log(consoles_[i], std::move(log).value());
  }
}

// Its edges only: it is hung up for as long as nobody has it open, and would be an event without end.
void Consoles::watch_terminal(const Console& console, int operation) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = event_tag(EventKind::kTerminal, static_cast<std::size_t>(&console - consoles_.data()));
  ::epoll_ctl(epoll_.get(), operation, console.terminal.get(), &event);
}

// A log that cannot be written is no reason to stop a container that runs.
void Consoles::take_log(Console& console, Fd log) {
  console.log = std::move(log);
  struct stat st {};
  if (!console.log || ::fstat(console.log.get(), &st) != 0 || !S_ISREG(st.st_mode))
    console.log.reset();
  else
    console.log_bytes = static_cast<std::uint64_t>(st.st_size);
}

void Consoles::write_log(Console& console, std::string_view text) {
  if (!console.log) return;
  if (console.log_bytes + text.size() > kMaxLogBytes) {
    take_log(console, rotate_(static_cast<std::uint32_t>(&console - consoles_.data())));
    if (!console.log) return;
  }
  if (const auto written = ::write(console.log.get(), text.data(), text.size()); written > 0)
    console.log_bytes += static_cast<std::uint64_t>(written);
}

void Consoles::adopt(std::vector<kernel::Pty> ptys) {
  for (std::size_t i = 0; i < consoles_.size() && i < ptys.size(); ++i) {
    close_master(consoles_[i]);
    consoles_[i].master = std::move(ptys[i].master);
    if (auto slave = kernel::open_slave(consoles_[i].master)) consoles_[i].slave = std::move(slave).value();
    watch(consoles_[i]);
  }
}

void Consoles::drain_and_close() {
  for (auto& console : consoles_) {
    // Bounded: at most what a terminal buffers, though the container's processes are gone by now anyway.
    for (int i = 0; i < 64 && console.master && read_master(console); ++i) {
    }
    close_master(console);
    watch(console);
  }
}

Result<SocketFd> Consoles::attach(std::uint32_t port, bool force) {
  for (auto& console : consoles_) {
    if (console.port != port) continue;
    if (console.client && !force)
      return fail(VIR_ERR_OPERATION_FAILED, "console " + std::to_string(port) + " is in use");
    close_client(console);
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make socket pair");
    SocketFd theirs(pair[1]);
    console.client = SocketFd(pair[0]);
    ::fcntl(console.client.get(), F_SETFL, O_NONBLOCK);
    console.to_client = std::exchange(console.unseen, {});
    flush_client(console);
    watch(console);
    return theirs;
  }
  return fail(VIR_ERR_INVALID_ARG, "the domain has no console " + std::to_string(port));
}

// False when nothing came.
bool Consoles::read_master(Console& console) {
  char buffer[4096];
  const auto got = ::read(console.master.get(), buffer, sizeof buffer);
  if (got > 0) {
    const std::string_view text(buffer, static_cast<std::size_t>(got));
    write_log(console, text);
    write_terminal(console, text);
    if (console.client) {
      console.to_client.append(text);
      flush_client(console);
      keep_end(console.to_client, kMaxToClient);
    } else {
      console.unseen.append(text);
      keep_end(console.unseen, kMaxUnseen);
    }
    return true;
  }
  if (got < 0 && is_again()) return false;
  // EIO: every slave was closed or hung up (pty(7)). Not read again until a slave is open, or epoll would spin.
  console.slave.reset();
  console.retry_at_ms = monotonic_ms() + kRetryMs;
  return false;
}

// What its reader does not take is lost, and so is what nobody is there to read: a terminal would keep it for the next one.
void Consoles::write_terminal(const Console& console, std::string_view text) {
  if (console.terminal && kernel::is_slave_open(console.terminal))
    (void)!::write(console.terminal.get(), text.data(), text.size());
}

// When the container takes no more, flush_master() goes on.
void Consoles::read_terminal(Console& console) {
  char buffer[kMaxToMaster];
  for (int i = 0; console.terminal && console.to_master.empty(); ++i) {
    if (i == kMostReads) return watch_terminal(console, EPOLL_CTL_MOD);  // and come back: others want to be served
    const auto got = ::read(console.terminal.get(), buffer, sizeof buffer);
    if (got <= 0) return;  // EIO: nobody has it open
    if (!console.master) continue;
    console.to_master.assign(buffer, static_cast<std::size_t>(got));
    write_master(console);
  }
}

void Consoles::on_terminal(std::size_t index) {
  if (index >= consoles_.size()) return;
  read_terminal(consoles_[index]);
  watch(consoles_[index]);
}

void Consoles::flush_client(Console& console) {
  while (!console.to_client.empty()) {
    const auto sent = ::send(console.client.get(), console.to_client.data(), console.to_client.size(), MSG_NOSIGNAL);
    if (sent < 0 && is_again()) return;
    if (sent <= 0) return close_client(console);
    console.to_client.erase(0, static_cast<std::size_t>(sent));
  }
}

void Consoles::flush_master(Console& console) {
  write_master(console);
  read_terminal(console);
}

void Consoles::write_master(Console& console) {
  while (console.master && !console.to_master.empty()) {
    const auto written = ::write(console.master.get(), console.to_master.data(), console.to_master.size());
    if (written <= 0) return;  // full: EPOLLOUT will tell; hung up: retry() reopens
    console.to_master.erase(0, static_cast<std::size_t>(written));
  }
}

void Consoles::on_master(std::size_t index, std::uint32_t events) {
  if (index >= consoles_.size()) return;
  auto& console = consoles_[index];
  if ((events & EPOLLOUT) != 0) flush_master(console);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
    for (int i = 0; i < kMostReads && read_master(console); ++i) {
    }
  watch(console);
}

void Consoles::on_client(std::size_t index, std::uint32_t events) {
  if (index >= consoles_.size() || !consoles_[index].client) return;
  auto& console = consoles_[index];
  if ((events & EPOLLOUT) != 0) flush_client(console);
  if (console.client && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && console.to_master.empty()) {
    char buffer[kMaxToMaster];
    const auto got = ::recv(console.client.get(), buffer, sizeof buffer, 0);
    if (got > 0) {
      console.to_master.assign(buffer, static_cast<std::size_t>(got));
      flush_master(console);
    } else if (got == 0 || !is_again()) {
      close_client(console);
    }
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    close_client(console);  // gone, with input that the container does not take
  }
  watch(console);
}

std::int64_t Consoles::next_retry_ms() const {
  std::int64_t next = -1;
  for (const auto& console : consoles_)
    if (console.retry_at_ms >= 0 && (next < 0 || console.retry_at_ms < next)) next = console.retry_at_ms;
  return next;
}

void Consoles::retry(std::int64_t now_ms) {
  for (auto& console : consoles_) {
    if (console.retry_at_ms < 0 || console.retry_at_ms > now_ms) continue;
    console.retry_at_ms = -1;
    if (!console.master) continue;
    // Opening a slave ends the hang-up of the master.
    if (auto slave = kernel::open_slave(console.master))
      console.slave = std::move(slave).value();
    else
      console.retry_at_ms = now_ms + kRetryMs;
    watch(console);
  }
}

void Consoles::close_client(Console& console) {
  if (console.client_events != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, console.client.get(), nullptr);
  console.client_events = 0;
  console.client.reset();
  console.to_client = {};  // and its memory: an idle controller stays small
  console.to_master = {};
}

void Consoles::close_master(Console& console) {
  if (console.master_events != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, console.master.get(), nullptr);
  console.master_events = 0;
  console.master.reset();
  console.slave.reset();
  console.retry_at_ms = -1;
  console.to_master.clear();
}

void Consoles::watch(Console& console) {
  const bool is_hung_up = console.retry_at_ms >= 0;
  std::uint32_t master = 0;
  if (console.master && !is_hung_up) master = EPOLLIN | (console.to_master.empty() ? 0u : EPOLLOUT);
  set_events(console.master, EventKind::kMaster, console, console.master_events, master);
  // With input pending a client is not read, and EPOLLHUP is enough to notice that it went away.
  std::uint32_t client = 0;
  if (console.client)
    client = EPOLLRDHUP | (console.to_master.empty() ? EPOLLIN : 0u) | (console.to_client.empty() ? 0u : EPOLLOUT);
  set_events(console.client, EventKind::kClient, console, console.client_events, client);
}

void Consoles::set_events(const Fd& fd, EventKind kind, const Console& console, std::uint32_t& registered,
                          std::uint32_t wanted) {
  if (registered == wanted || !fd) return;
  epoll_event event{};
  event.events = wanted;
  event.data.u64 = event_tag(kind, static_cast<std::size_t>(&console - consoles_.data()));
  const int operation = wanted == 0 ? EPOLL_CTL_DEL : registered == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  ::epoll_ctl(epoll_.get(), operation, fd.get(), &event);
  registered = wanted;
}

}  // namespace virtuserns::controller
