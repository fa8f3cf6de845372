// Worker threads: where calls run that may take their time.
//
// Three lanes. Low: at most `max` threads, made when they are needed. High: a few threads that only run calls which
// never wait for a container, so a daemon full of slow calls still lists and destroys; the low lane's threads help.
// Auth: polkit, whose user may be typing a password. Within a lane users take turns, so one user's queue delays
// nobody else's.
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::rpc {

enum class Lane { kLow, kHigh, kAuth };

class Workers {
 public:
  struct Sizes {
    unsigned min = 5, max = 20, high = 5, auth = 20;
  };
  using Job = std::function<void()>;

  // `prepare`: called first in each thread.
  explicit Workers(Sizes sizes, void (*prepare)() = nullptr) : sizes_(sizes), prepare_(prepare) {}
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  [[nodiscard]] Result<void> start();  // the `min` and `high` threads
  void submit(Lane lane, uid_t owner, Job job);
  void resize(Sizes sizes);  // takes effect as threads are needed; none is ended
  void stop();               // waits for jobs under way, drops the others

 private:
  static constexpr std::size_t kLanes = 3;
  struct Queue {
    std::map<uid_t, std::deque<Job>> by_owner;
    uid_t last = 0;
    std::size_t size = 0;
  };
  struct Start {
    Workers* workers;
    Lane lane;
  };

  static void* run(void* start);
  void run_lane(Lane lane);
  [[nodiscard]] bool take(Lane lane, Job& job);  // mutex_ held
  [[nodiscard]] static bool take_from(Queue& queue, Job& job);
  [[nodiscard]] Result<void> add_thread(Lane lane);  // mutex_ held
  [[nodiscard]] unsigned max_of(Lane lane) const;

  std::mutex mutex_;
  Sizes sizes_;
  void (*const prepare_)();
  std::array<std::condition_variable, kLanes> wake_;
  std::array<Queue, kLanes> queues_;
  std::array<unsigned, kLanes> threads_count_{}, idle_{};
  std::vector<pthread_t> threads_;
  bool is_stopping_ = false;
};

}  // namespace virtuserns::rpc
