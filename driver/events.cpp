#include "driver/events.h"

#include <utility>

namespace virtuserns {

int EventHub::subscribe(Subscriber subscriber) {
  const std::lock_guard lock(mutex_);
  const int id = next_id_++;
  subscribers_.emplace(id, std::move(subscriber));
  return id;
}

void EventHub::unsubscribe(int id) {
  const std::lock_guard lock(mutex_);  // emit holds it while it calls
  subscribers_.erase(id);
}

// Under the mutex: that is what makes the order the same for everybody. Subscribers do not block.
void EventHub::emit(const Event& event) {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, subscriber] : subscribers_) subscriber(event);
}

}  // namespace virtuserns
