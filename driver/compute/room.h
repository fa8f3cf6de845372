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
  static constexpr std::chrono::milliseconds kPatience = std::chrono::minutes(2);

  Room(std::string folder, unsigned reserve_percent, std::chrono::milliseconds patience = kPatience)
      : folder_(std::move(folder)), reserve_percent_(reserve_percent), patience_(patience) {}

  // From when it is one's turn, for which it waits, until it is gone.
  class Turn {
   public:
    Turn(Room& room, std::uint64_t limit_bytes) : room_(room), bytes_(room.enter(limit_bytes)) {}
    ~Turn() { room_.leave(bytes_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Room& room_;
    std::uint64_t bytes_;
  };

 private:
  std::uint64_t enter(std::uint64_t limit_bytes);  // 0: none
  void leave(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t spare_bytes() const;

  const std::string folder_;
  const unsigned reserve_percent_;
  const std::chrono::milliseconds patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Waiting {};
  std::list<Waiting> waiting_;  // as they came
  std::uint64_t running_ = 0, promised_ = 0;
};

}  // namespace virtuserns::compute
