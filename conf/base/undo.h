// Undo: the reversals of steps already taken, run newest first unless commit() is called.
//
// Every step that changes the kernel or a file registers its reversal right after it succeeded. A reversal must
// not throw and must not stop the others: it swallows (at most logs) its own failure.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace virtuserns {

class Undo {
 public:
  Undo() = default;
  Undo(Undo&&) = default;
  Undo& operator=(Undo&&) = delete;
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;
  ~Undo() { roll_back(); }

  void add(std::function<void()> reversal) { reversals_.push_back(std::move(reversal)); }
  void commit() { reversals_.clear(); }
  void roll_back() {
    while (!reversals_.empty()) {
      auto reversal = std::move(reversals_.back());
      reversals_.pop_back();
      reversal();
    }
  }

 private:
  std::vector<std::function<void()>> reversals_;
};

}  // namespace virtuserns
