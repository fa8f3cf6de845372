#include "driver/rpc/workers.h"

#include <memory>
#include <utility>

#include "conf/base/log.h"

namespace virtuserns::rpc {
namespace {

std::size_t index_of(Lane lane) { return static_cast<std::size_t>(lane); }

}  // namespace

unsigned Workers::max_of(Lane lane) const {
  switch (lane) {
    case Lane::kLow:
      return sizes_.max;
    case Lane::kHigh:
      return sizes_.high;
    default:
      return sizes_.auth;
  }
}

Result<void> Workers::start() {
  const std::lock_guard lock(mutex_);
  for (unsigned i = 0; i < sizes_.min; ++i) TRY(add_thread(Lane::kLow), "start a worker");
  for (unsigned i = 0; i < sizes_.high; ++i) TRY(add_thread(Lane::kHigh), "start a worker");
  return {};
}

// pthread_create and not std::thread: a process limit is an error to live with here, not an exception.
Result<void> Workers::add_thread(Lane lane) {
  auto start = std::make_unique<Start>(Start{this, lane});
  pthread_t thread{};
  if (const int err = ::pthread_create(&thread, nullptr, &Workers::run, start.get()); err != 0)
    return sys_fail("create a thread", err);
  (void)start.release();
  threads_.push_back(thread);
  ++threads_count_[index_of(lane)];
  return {};
}

void* Workers::run(void* argument) {
  const std::unique_ptr<Start> start(static_cast<Start*>(argument));
  ::pthread_setname_np(::pthread_self(), "rpc-worker");
  if (start->workers->prepare_) start->workers->prepare_();
  start->workers->run_lane(start->lane);
  return nullptr;
}

bool Workers::take_from(Queue& queue, Job& job) {
  if (queue.size == 0) return false;
  auto owner = queue.by_owner.upper_bound(queue.last);
  if (owner == queue.by_owner.end()) owner = queue.by_owner.begin();
  queue.last = owner->first;
  job = std::move(owner->second.front());
  owner->second.pop_front();
  if (owner->second.empty()) queue.by_owner.erase(owner);
  --queue.size;
  return true;
}

bool Workers::take(Lane lane, Job& job) {
  if (lane == Lane::kLow && take_from(queues_[index_of(Lane::kHigh)], job)) return true;
  return take_from(queues_[index_of(lane)], job);
}

void Workers::run_lane(Lane lane) {
  std::unique_lock lock(mutex_);
  while (!is_stopping_) {
    Job job;
    if (!take(lane, job)) {
      ++idle_[index_of(lane)];
      wake_[index_of(lane)].wait(lock);
      --idle_[index_of(lane)];
      continue;
    }
    lock.unlock();
    job();
    job = nullptr;  // what it holds is released before the lock is taken
    lock.lock();
  }
}

void Workers::submit(Lane lane, uid_t owner, Job job) {
  const std::lock_guard lock(mutex_);
  if (is_stopping_) return;
  Queue& queue = queues_[index_of(lane)];
  queue.by_owner[owner].push_back(std::move(job));
  ++queue.size;
  wake_[index_of(lane)].notify_one();
  // Idle threads that were woken but have not run yet count as idle still, and their jobs as queued: the difference
  // is what nobody is going to take soon.
  const auto idle = [this](Lane l) { return static_cast<std::size_t>(idle_[index_of(l)]); };
  if (queue.size <= idle(lane)) return;
  const Lane helper = lane == Lane::kHigh ? Lane::kLow : lane;
  std::size_t wanted = queue.size;
  if (helper != lane) {
    wake_[index_of(helper)].notify_one();
    wanted = queue.size - idle(lane) + queues_[index_of(helper)].size;
  }
  if (wanted <= idle(helper) || threads_count_[index_of(helper)] >= max_of(helper)) return;
  if (const auto added = add_thread(helper); !added) log_warning("rpc.workers", added.error().text);
}

void Workers::resize(Sizes sizes) {
  const std::lock_guard lock(mutex_);
  sizes_ = sizes;
}

void Workers::stop() {
  std::vector<pthread_t> threads;
  std::array<Queue, kLanes> dropped;
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    threads.swap(threads_);
    dropped.swap(queues_);
    for (auto& wake : wake_) wake.notify_all();
  }
  for (const pthread_t thread : threads) ::pthread_join(thread, nullptr);
}

}  // namespace virtuserns::rpc
