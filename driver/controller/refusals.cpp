#include "driver/controller/refusals.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/process.h"

namespace virtuserns::controller {

namespace {

// One call costs the controller some 20 us of processor time, which no control group of the domain pays: a domain that
// makes nothing else is answered as fast as this, for some two percent of a processor (measured with two processes).
constexpr std::int64_t kCallsPerSecond = 500;
constexpr std::int64_t kBurst = 1000;
constexpr std::int64_t kWaitMs = 20;  // then what may be answered in this time has come together

constexpr std::size_t kMaxPairs = 256;  // of call and program; beyond, calls alone
constexpr int kMaxProgramsOfACall = 8;  // so that each service of a systemd has no line of its own
constexpr std::int64_t kFirstPauseMs = 60'000, kLongestPauseMs = 24 * 3600 * 1000;

std::string read_name(const DirFd& proc, pid_t thread) {
  const Fd file(::openat(proc.get(), (std::to_string(thread) + "/comm").c_str(), O_RDONLY | O_CLOEXEC));
  char text[64];
  const auto got = file ? ::read(file.get(), text, sizeof text) : 0;
  return got > 0 ? std::string(trim(std::string_view(text, static_cast<std::size_t>(got)))) : "?";
}

bool is_32bit(std::uint32_t arch) { return (arch & __AUDIT_ARCH_64BIT) == 0; }

}  // namespace

void write_log_line(const std::string& text) {
  const std::string line = format_log_line(std::time(nullptr), text);
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

Refusals::Refusals(LaunchPlan& plan, const Host& host, const Fd& epoll)
    : plan_(plan), host_(host), epoll_(epoll), budget_(kBurst) {
  for (auto& step : plan.inside)
    if (auto* filter = std::get_if<SeccompStep>(&step)) {
      names_ = std::move(filter->refusable);
      is_wanted_ = filter->is_logged;
    }
}

void Refusals::watch(std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = event_tag(EventKind::kRefusals, 0);
  ::epoll_ctl(epoll_.get(), operation, listener_.get(), &event);
}

void Refusals::adopt(Fd listener) {
  listener_ = std::move(listener);
  retry_at_ms_ = -1;
  if (listener_)
    watch(EPOLLIN, EPOLL_CTL_ADD);
  else if (is_wanted_ && told_.emplace("", Told{}).second)
    write_log_line("refused system calls will not be told here: this kernel does not say (seccomp_unotify(2))");
}

void Refusals::refill(std::int64_t now_ms) {
  const auto earned = (now_ms - refilled_ms_) * kCallsPerSecond / 1000;
  if (earned <= 0) return;
  budget_ = std::min(kBurst, budget_ + earned);
  refilled_ms_ = now_ms;
}

void Refusals::on_listener() {
  if (!listener_) return;
  refill(monotonic_ms());
  // A part of them at a time: the loop has others to serve.
  for (int i = 0; i < 64; ++i) {
    // Asked here and not told by epoll: the event may be that of the boot before.
    pollfd entry{listener_.get(), POLLIN, 0};
    if (::poll(&entry, 1, 0) <= 0) return;
    if ((entry.revents & POLLIN) == 0) {  // nobody is left under the filter
      listener_.reset();
      retry_at_ms_ = -1;
      return;
    }
    if (budget_ <= 0) {
      watch(0, EPOLL_CTL_MOD);
      retry_at_ms_ = monotonic_ms() + kWaitMs;
      return;
    }
    const auto call = kernel::receive_refused(listener_);
    if (!call) return;
    --budget_;
    if (*call) take(**call);
  }
}

void Refusals::retry(std::int64_t now_ms) {
  if (retry_at_ms_ < 0 || now_ms < retry_at_ms_) return;
  retry_at_ms_ = -1;
  if (listener_) watch(EPOLLIN, EPOLL_CTL_MOD);
}

std::string Refusals::name_of(const kernel::RefusedCall& call) const {
  for (const auto& known : names_)
    if (known.arch == call.arch && known.number == call.number) return known.name;
  return "system call " + std::to_string(call.number);
}

void Refusals::take(const kernel::RefusedCall& call) {
  const std::string program = read_name(host_.proc, call.thread);
  const std::string name = name_of(call) + (is_32bit(call.arch) ? " (32-bit)" : "");
  std::string key = name + '\0' + program;
  if (!told_.contains(key)) {
    auto& programs = programs_[name];
    if (told_.size() >= kMaxPairs || programs >= kMaxProgramsOfACall)
      key = name;
    else
      ++programs;
  }
  auto& told = told_[key];
  const auto now = monotonic_ms();
  const bool is_due = now >= told.next_ms;
  std::string line;
  if (is_due || told.last.empty()) {
    struct stat owner {};
    const bool has_owner = ::fstatat(host_.proc.get(), std::to_string(call.thread).c_str(), &owner, 0) == 0;
    const auto status = kernel::read_process_status(host_.proc, call.thread);
    line = "refused " + name + ", arguments " + format_hex(call.arguments[0]) + " " + format_hex(call.arguments[1]) +
           ", of " + quote(program) + ", process " +
           (status && status->ns_pids.size() > 1 ? std::to_string(status->ns_pids[1]) : "?") + " (" +
           std::to_string(call.thread) + " on the host" +
           (has_owner ? ", user " + std::to_string(owner.st_uid) : std::string()) + ") in domain " +
           quote(plan_.name);
    // Of a process that has ended meanwhile the number may be another's.
    if (!kernel::still_waits(listener_, call)) return;
  }
  kernel::answer_refused(listener_, call, EPERM);
  if (!line.empty()) told.last = line;
  if (!is_due) {
    ++told.untold;
    return;
  }
  tell(line, told);
  told.pause_ms = told.pause_ms == 0 ? kFirstPauseMs : std::min(told.pause_ms * 2, kLongestPauseMs);
  told.next_ms = now + told.pause_ms;
}

void Refusals::tell(const std::string& line, Told& told) {
  write_log_line(line + (told.untold ? ", and " + std::to_string(told.untold) + " times since the last line" : ""));
  told.untold = 0;
}

void Refusals::close() {
  listener_.reset();
  retry_at_ms_ = -1;
  for (auto& [key, told] : told_)
    if (told.untold != 0) tell(told.last, told);
}

}  // namespace virtuserns::controller
