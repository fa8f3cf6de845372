#include "driver/controller/supervise.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "conf/base/text.h"
#include "driver/controller/cage.h"
#include "driver/kernel/pidfd.h"
#include "driver/kernel/process.h"

namespace virtuserns::controller {

namespace {

constexpr std::size_t kStormBoots = 10;          // more boots than this
constexpr std::int64_t kStormWindowMs = 10'000;  // in this time wait until it is over (a container that only reboots)
constexpr std::size_t kMaxNotes = 64;
constexpr std::int64_t kFreezePollMs = 2;
constexpr std::size_t kMaxStorageErrors = 64;

std::uint64_t realtime_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
}

// reboot(2) in a pid namespace ends its init as if by SIGHUP (restart) or SIGINT (halt, power off); no real signal of
// these numbers can kill it, because the kernel drops what init has no handler for.
ExitCause cause_of(int status) {
  if (WIFEXITED(status)) return ExitCause::kExited;
  if (WTERMSIG(status) == SIGHUP) return ExitCause::kReboot;
  if (WTERMSIG(status) == SIGINT) return ExitCause::kPoweroff;
  return ExitCause::kKilled;
}

Fd open_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT}) ::sigaddset(&set, signal);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  return Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

}  // namespace

Supervisor::Supervisor(LaunchPlan plan, Host host, std::vector<Fd> passed_files, SocketFd channel,
                       Listeners listeners)
    : plan_(std::move(plan)),
      host_(std::move(host)),
      passed_files_(std::move(passed_files)),
      owner_(::geteuid()),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      signals_(open_signals()),
      listener_(std::move(listeners.controller)),
      plugs_(std::move(listeners.plugs)),
      consoles_(plan_, host_, epoll_, [this](std::uint32_t index) { return stem_.rotate_log(index); }),
      refusals_(plan_, host_, epoll_),
      commands_(stem_, epoll_,
                [this](const Commands::Asker& asker, const Result<ExecReply>& result, std::span<const int> files) {
                  if (!result) return reply(asker.connection, asker.serial, result.error());
                  send(asker.connection, FromController(Reply{asker.serial, *result}), files);
                }) {
  watch(signals_, EventKind::kSignals, 0);
  if (listener_) watch(listener_, EventKind::kListener, 0);
  for (std::size_t i = 0; i < host_.storage.size(); ++i) {
    watch(host_.storage[i].process, EventKind::kStorage, i);
    watch(host_.storage[i].errors, EventKind::kStorageErrors, i);
  }
  if (channel) add_connection(std::move(channel));
}

void Supervisor::watch(const Fd& fd, EventKind kind, std::size_t index) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = event_tag(kind, index);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event);
}

// All privileges until init's exec; then, for ever, none. Nothing of the container has run before it: init itself, which
// makes its last preparations meanwhile, is still ours.
Result<void> Supervisor::boot_first() {
  Waiting waiting = TRY(begin_boot(plan_, host_, passed_files_, Parent::kCaller));
  // Before the fork, so that what is left is shared: afterwards, what either gives back it has made its own first.
  kernel::shrink_heap();
  auto stem = Stem::grow(plan_, host_, passed_files_, waiting.boot, std::move(plugs_));
  if (!stem) {
    abandon(waiting);
    return std::move(stem).error();
  }
  stem_ = std::move(stem).value();
  watch(stem_.socket(), EventKind::kStem, 0);
  waiting.boot.devpts.reset();
  waiting.boot.user_ns.reset();
  passed_files_.clear();
  host_.keep_only_views();
  TRY(enter_cage(), "confine the controller");
  TRY(adopt(open_gate(host_, std::move(waiting))));
  // What nobody could ever stop or boot again has not started.
  if (stem_.is_gone()) return fail(VIR_ERR_OPERATION_FAILED, "the privileged part of the controller was killed");
  return {};
}

Result<void> Supervisor::boot_again() { return adopt(open_gate(host_, TRY(stem_.boot()))); }

Result<void> Supervisor::adopt(Result<Boot> booted) {
  Boot boot = TRY(std::move(booted));
  boot_times_ms_.push_back(monotonic_ms());
  if (boot_times_ms_.size() > kStormBoots) boot_times_ms_.pop_front();
  boot.record.boots = ++boots_;
  last_boot_ = boot.record;
  boot_ = std::move(boot);
  watch(boot_->init, EventKind::kInit, 0);
  consoles_.adopt(std::move(boot_->consoles));
  refusals_.adopt(std::move(boot_->refusals));
  return {};
}

void Supervisor::tidy_up_after_boot() {
  stem_.tidy();
  kernel::shrink_stack();
}

int Supervisor::run() {
  if (auto booted = boot_first(); !booted) {
    auto error = std::move(booted).error().with_context("start domain " + quote(plan_.name));
    if (auto released = stem_ ? stem_.release({}) : host_.release(); !released)
      error.text += " (and clean up: " + released.error().text + ")";
    stem_.await_end();
    kernel::reap_all();
    for (const auto& [id, connection] : connections_)
      (void)send_packet(connection.socket.get(), xdr::encode(FromController(Note(FailedNote{to_wire(error)}))));
    return 1;
  }
  for (auto& [id, connection] : connections_)
    (void)send_packet(connection.socket.get(), xdr::encode(FromController(Note(StartedNote{last_boot_}))));
  tidy_up_after_boot();
  while (!has_ended_) {
    epoll_event events[16];
    const int count = ::epoll_wait(epoll_.get(), events, 16, timeout_ms());
    for (int i = 0; i < count && !has_ended_; ++i)
      dispatch(static_cast<EventKind>(events[i].data.u64 >> 32), events[i].data.u64 & 0xffffffff, events[i].events);
    if (!has_ended_) on_timers();
  }
  return is_stem_gone_ ? 1 : 0;
}

void Supervisor::dispatch(EventKind kind, std::size_t index, std::uint32_t events) {
  switch (kind) {
    case EventKind::kInit:
      return on_init_exit();
    case EventKind::kListener:
      return accept_connection();
    case EventKind::kSignals:
      return on_signals();
    case EventKind::kConnection:
      return on_connection(index);
    case EventKind::kMaster:
      return consoles_.on_master(index, events);
    case EventKind::kClient:
      return consoles_.on_client(index, events);
    case EventKind::kTerminal:
      return consoles_.on_terminal(index);
    case EventKind::kRefusals:
      return refusals_.on_listener();
    case EventKind::kCommand:
      return commands_.on_event(index);
    case EventKind::kStem:
      return on_stem_gone();
    case EventKind::kStorage:
      return on_storage_gone(index);
    case EventKind::kStorageErrors:
      return on_storage_errors(host_.storage[index]);
  }
}

void Supervisor::on_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) > 0) {
    // The host goes down or the administrator means it: the domain ends the way destroy ends it.
    is_destroying_ = true;
    kill_init();
  }
}

int Supervisor::timeout_ms() const {
  std::int64_t next = consoles_.next_retry_ms();
  const auto sooner = [&](std::int64_t when) {
    if (when >= 0 && (next < 0 || when < next)) next = when;
  };
  sooner(refusals_.next_retry_ms());
  sooner(reboot_at_ms_);
  sooner(commands_.next_deadline_ms());
  if (!freezes_.empty()) sooner(monotonic_ms() + kFreezePollMs);
  if (next < 0) return -1;
  return static_cast<int>(std::max<std::int64_t>(0, next - monotonic_ms()));
}

void Supervisor::on_timers() {
  const auto now = monotonic_ms();
  consoles_.retry(now);
  refusals_.retry(now);
  commands_.on_time(now);
  if (!freezes_.empty()) poll_freezes();
  if (reboot_at_ms_ >= 0 && now >= reboot_at_ms_) {
    reboot_at_ms_ = -1;
    reboot();
  }
}

void Supervisor::kill_init() {
  if (!boot_) {  // between two boots: there is nobody to kill
    if (is_destroying_) finish(ExitCause::kDestroyed, 0);
    return;
  }
  stem_.kill();
}

// Nobody can end or boot the container any more, or run anything in it. The daemon finds what it finds when a controller
// was killed: init gets its death signal as we leave.
void Supervisor::on_stem_gone() {
  refusals_.close();
  write_log_line("the privileged part of the controller of domain " + quote(plan_.name) +
                 " is gone: the domain ends");
  is_stem_gone_ = has_ended_ = true;
}

// Into the domain's log, up to a bound: an image may make its daemon say something as often as it likes.
void Supervisor::on_storage_errors(StorageDaemon& daemon) {
  if (!daemon.errors) return;
  char text[1024];
  const auto size = ::read(daemon.errors.get(), text, sizeof text);
  if (size > 0 && ++daemon.told <= kMaxStorageErrors)
    return write_log_line("the storage daemon of image " + quote(daemon.image) + " says: " +
                          printable(trim(std::string_view(text, static_cast<std::size_t>(size))), sizeof text));
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, daemon.errors.get(), nullptr);
  daemon.errors.reset();
}

// All that the container asks of that file system fails from now on, and nothing could be started from it again.
void Supervisor::on_storage_gone(std::size_t index) {
  auto& daemon = host_.storage[index];
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, daemon.process.get(), nullptr);
  while (daemon.errors) on_storage_errors(daemon);  // its last words
  write_log_line("the storage daemon of image " + quote(daemon.image) + " of domain " + quote(plan_.name) +
                 " is gone: the domain ends");
  lost_image_ = daemon.image;
  if (!boot_) return finish(ExitCause::kKilled, 0, lost_image());
  kill_init();
}

std::string Supervisor::lost_image() const {
  return "the storage daemon of image " + quote(lost_image_) + " is gone";
}

void Supervisor::on_init_exit() {
  if (!boot_) return;
  const auto waited = kernel::wait_process(boot_->init, 0);
  if (waited && !*waited) return;
  const int status = waited ? **waited : 0;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, boot_->init.get(), nullptr);
  boot_.reset();
  commands_.end_all();
  consoles_.drain_and_close();
  freezes_.clear();
  if (is_destroying_) return finish(ExitCause::kDestroyed, status);
  if (!lost_image_.empty()) return finish(ExitCause::kKilled, status, lost_image());
  const auto cause = cause_of(status);
  const AfterExit action = is_resetting_ || restart_once_ ? AfterExit::kRestart
                           : cause == ExitCause::kReboot  ? plan_.after_reboot
                           : cause == ExitCause::kKilled  ? plan_.after_crash
                                                          : plan_.after_poweroff;
  if (action == AfterExit::kDestroy) return finish(cause, status);
  const auto now = monotonic_ms();
  const bool is_storm = boot_times_ms_.size() >= kStormBoots && now - boot_times_ms_.front() < kStormWindowMs;
  if (is_storm && !is_resetting_)
    reboot_at_ms_ = boot_times_ms_.front() + kStormWindowMs;
  else
    reboot();
}

void Supervisor::reboot() {
  is_resetting_ = restart_once_ = false;
  const auto booted = boot_again();
  for (const auto& [id, serial] : std::exchange(waiting_resets_, {})) reply(id, serial, booted);
  if (!booted) return finish(ExitCause::kRebootFailed, 0, booted.error().text);
  note(RebootedNote{++sequence_, last_boot_});
  if (unacknowledged_.size() > kMaxNotes) unacknowledged_.pop_front();
  tidy_up_after_boot();
}

void Supervisor::finish(ExitCause cause, int wait_status, const std::string& error) {
  ExitRecord record{cause, wait_status, realtime_ms(), boots_, error};
  refusals_.close();  // before anybody hears of the end and reads the log
  auto released = stem_.release(record);
  if (stem_.is_gone()) return on_stem_gone();  // groups may be left, which only the daemon can remove
  if (!released) record.error += (record.error.empty() ? "clean up: " : "; clean up: ") + released.error().text;
  note(EndedNote{++sequence_, record});
  for (const auto& [id, serial] : std::exchange(waiting_destroys_, {})) reply(id, serial, Result<void>());
  for (const auto& [id, serial] : std::exchange(waiting_resets_, {}))
    reply(id, serial, fail(VIR_ERR_OPERATION_FAILED, "the domain ended"));
  // Nobody waits for that: nothing of the domain is in them.
  stem_.await_end();
  kernel::reap_all();
  has_ended_ = true;
}

}  // namespace virtuserns::controller
