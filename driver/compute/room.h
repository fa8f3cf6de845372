// Whose turn it is to unpack an image. Each looks at what is free when it begins, and several at once would see the same room: so
// they are at it together only where there is room for all that they may take, and else one after the other, as they came. But whoever
// has waited for long goes on: an image that takes an hour shall not keep everybody from booting for as long.
//
// Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>

namespace virtuserns::compute {

class Room {
 public:
  struct Amount {
    std::uint64_t bytes = 0, entries = 0;  // of a limit: 0 is none
  };

  static constexpr std::chrono::milliseconds kPatience = std::chrono::minutes(2);

  Room(std::string folder, unsigned reserve_percent, std::chrono::milliseconds patience = kPatience)
      : folder_(std::move(folder)), reserve_percent_(reserve_percent), patience_(patience) {}

  // From when it is one's turn, for which it waits, until it is gone.
  class Turn {
   public:
    Turn(Room& room, Amount limit) : room_(room), promised_(room.enter(limit)) {}
    ~Turn() { room_.leave(promised_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Room& room_;
    Amount promised_;
  };

  // Nobody waits any more. Who has a turn asks whether that is why.
  void stop();
  [[nodiscard]] bool is_ending();

 private:
  Amount enter(Amount limit);
  void leave(Amount promised);

  const std::string folder_;
  const unsigned reserve_percent_;
  const std::chrono::milliseconds patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Waiting {};
  std::list<Waiting> waiting_;  // as they came
  std::uint64_t running_ = 0;
  Amount promised_;
  bool is_ending_ = false;
};

}  // namespace virtuserns::compute
