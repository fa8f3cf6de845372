#include "conf/base/loop.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

namespace virtuserns {

Result<std::unique_ptr<Loop>> Loop::create() {
  std::unique_ptr<Loop> loop(new Loop);
  loop->epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_) return sys_fail("create epoll");
  loop->timer_ = Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!loop->timer_) return sys_fail("create timerfd");
  loop->wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->wake_) return sys_fail("create eventfd");
  Loop* self = loop.get();
  TRY(loop->add(loop->timer_.get(), EPOLLIN, [self](std::uint32_t) {
    std::uint64_t expirations = 0;
    (void)!::read(self->timer_.get(), &expirations, sizeof expirations);
    self->run_timers();
  }));
  TRY(loop->add(loop->wake_.get(), EPOLLIN, [self](std::uint32_t) {
    std::uint64_t count = 0;
    (void)!::read(self->wake_.get(), &count, sizeof count);
    self->run_posted();
  }));
  return loop;
}

std::uint64_t Loop::now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
}

namespace {

// The generation tells a descriptor from a later one with the same number, whose predecessor still had an event due.
epoll_event make_event(int fd, std::uint32_t generation, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<std::uint64_t>(generation) << 32 | static_cast<std::uint32_t>(fd);
  return event;
}

}  // namespace

Result<void> Loop::add(int fd, std::uint32_t events, Ready ready) {
  epoll_event event = make_event(fd, next_generation_, events);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return sys_fail("watch a descriptor");
  watches_[fd] = {next_generation_++, std::make_shared<Ready>(std::move(ready))};
  return {};
}

void Loop::modify(int fd, std::uint32_t events) {
  const auto found = watches_.find(fd);
  if (found == watches_.end()) return;
  epoll_event event = make_event(fd, found->second.generation, events);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::remove(int fd) {
  if (watches_.erase(fd) != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Loop::TimerId Loop::add_timer(std::uint64_t delay_ms, Task task) {
  const TimerId id = next_timer_++;
  const std::uint64_t deadline = now_ms() + delay_ms;
  timers_.emplace(std::pair(deadline, id), std::move(task));
  deadlines_.emplace(id, deadline);
  arm_timer();
  return id;
}

void Loop::cancel_timer(TimerId id) {
  const auto found = deadlines_.find(id);
  if (found == deadlines_.end()) return;
  timers_.erase({found->second, id});
  deadlines_.erase(found);
  arm_timer();
}

void Loop::arm_timer() {
  itimerspec when{};
  if (!timers_.empty()) {
    // A deadline of 0 would disarm: the first millisecond after boot is not a moment this program sees.
    const std::uint64_t deadline = timers_.begin()->first.first;
    when.it_value.tv_sec = static_cast<time_t>(deadline / 1000);
    when.it_value.tv_nsec = static_cast<long>(deadline % 1000) * 1'000'000;
  }
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

void Loop::run_timers() {
  const std::uint64_t now = now_ms();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto node = timers_.extract(timers_.begin());
    deadlines_.erase(node.key().second);
    node.mapped()();
  }
  arm_timer();
}

Result<void> Loop::on_signal(int signo, Task task) {
  signal_tasks_[signo] = std::move(task);
  sigset_t set;
  sigemptyset(&set);
  for (const auto& [number, unused] : signal_tasks_) sigaddset(&set, number);
  if (const int err = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); err != 0) return sys_fail("block signals", err);
  const bool is_new = !signals_;
  const int fd = ::signalfd(is_new ? -1 : signals_.get(), &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return sys_fail("create signalfd");
  if (!is_new) return {};
  signals_ = Fd(fd);
  return add(fd, EPOLLIN, [this](std::uint32_t) { read_signals(); });
}

void Loop::read_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const auto found = signal_tasks_.find(static_cast<int>(info.ssi_signo));
    if (found != signal_tasks_.end()) found->second();
  }
}

void Loop::post(Task task) {
  bool must_wake = false;
  {
    const std::lock_guard lock(mutex_);
    must_wake = posted_.empty();
    posted_.push_back(std::move(task));
  }
  if (!must_wake) return;
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void Loop::run_posted() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (Task& task : tasks) task();
}

void Loop::quit() {
  post([this] { is_quitting_ = true; });
}

void Loop::run() {
  is_quitting_ = false;
  epoll_event events[64];
  while (!is_quitting_) {
    const int count = ::epoll_wait(epoll_.get(), events, 64, -1);
    for (int i = 0; i < count && !is_quitting_; ++i) {
      // Looked up again for each: an earlier callback of this round may have removed it. Held while it runs: it may
      // remove itself.
      const auto found = watches_.find(static_cast<int>(events[i].data.u64 & 0xffffffff));
      if (found == watches_.end() || found->second.generation != events[i].data.u64 >> 32) continue;
      const std::shared_ptr<Ready> ready = found->second.ready;
      (*ready)(events[i].events);
    }
  }
}

}  // namespace virtuserns
