// A process in the hands of an attacker: by ptrace(2) it does whatever system call the test likes.
#pragma once

#if defined(__x86_64__)

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "conf/base/fd.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {

// A process that is made to do system calls: stopped in one of its own, at the instruction behind it. One that is found
// between two calls has another instruction there, so it goes on until it waits in one.
class TakenOver {
 public:
  struct Outcome {
    bool is_refused = false;  // SIGSYS: by the filter
    long result = 0;
  };

  explicit TakenOver(pid_t pid) : pid_(pid) {
    if (::ptrace(PTRACE_SEIZE, pid, 0, 0) != 0) return;
    for (int i = 0; i < 5000 * time_factor() && !is_ours_; ++i) {
      if (i > 0 && ::ptrace(PTRACE_CONT, pid, 0, 0) != 0) return;
      if (i > 0) ::usleep(1000);
      int status = 0;
      if (::ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0 || ::waitpid(pid, &status, __WALL) != pid ||
          !WIFSTOPPED(status) || ::ptrace(PTRACE_GETREGS, pid, 0, &registers_) != 0)
        return;
      is_ours_ = static_cast<long>(registers_.orig_rax) >= 0;
    }
    if (!is_ours_) ::ptrace(PTRACE_DETACH, pid_, 0, 0);
  }
  ~TakenOver() {
    if (!is_ours_) return;
    ::ptrace(PTRACE_SETREGS, pid_, 0, &registers_);
    ::ptrace(PTRACE_DETACH, pid_, 0, 0);
  }
  TakenOver(const TakenOver&) = delete;
  TakenOver& operator=(const TakenOver&) = delete;
  explicit operator bool() const { return is_ours_; }

  // A text in its memory, for an argument.
  long text(const std::string& content) {
    const auto place = (registers_.rsp - 4096) & ~std::uint64_t{15};
    const Fd memory(::open(("/proc/" + std::to_string(pid_) + "/mem").c_str(), O_RDWR | O_CLOEXEC));
    EXPECT_EQ(::pwrite(memory.get(), content.c_str(), content.size() + 1, static_cast<off_t>(place)),
              static_cast<ssize_t>(content.size() + 1));
    return static_cast<long>(place);
  }

  Outcome call(long number, std::array<long, 6> arguments = {}) {
    auto registers = prepare(number, arguments);
    const auto start = registers.rip;
    ::ptrace(PTRACE_SETREGS, pid_, 0, &registers);
    int status = 0;
    do {  // after a refused one there is a stop more
      ::ptrace(PTRACE_SINGLESTEP, pid_, 0, 0);
      if (::waitpid(pid_, &status, __WALL) != pid_ || !WIFSTOPPED(status)) {
        is_ours_ = false;
        ADD_FAILURE() << "it died of system call " << number;
        return {};
      }
      if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSYS) {
        ADD_FAILURE() << "signal " << WSTOPSIG(status) << " came of system call " << number;
        return {};
      }
      ::ptrace(PTRACE_GETREGS, pid_, 0, &registers);
    } while (registers.rip == start);
    if (WSTOPSIG(status) == SIGSYS) return {true, -EPERM};
    return {false, static_cast<long>(registers.rax)};
  }

  // Lets it go on as if it had made this call itself, signal and all.
  void go_on_with(long number, std::array<long, 6> arguments = {}) {
    auto registers = prepare(number, arguments);
    ::ptrace(PTRACE_SETREGS, pid_, 0, &registers);
    ::ptrace(PTRACE_DETACH, pid_, 0, 0);
    is_ours_ = false;
  }

 private:
  [[nodiscard]] user_regs_struct prepare(long number, const std::array<long, 6>& arguments) const {
    constexpr unsigned kLengthOfSyscall = 2;
    auto registers = registers_;
    registers.rip -= kLengthOfSyscall;
    registers.orig_rax = static_cast<unsigned long long>(-1);  // nothing of its own to be gone on with
    registers.rax = static_cast<unsigned long long>(number);
    const auto as_register = [&](int i) { return static_cast<unsigned long long>(arguments[i]); };
    registers.rdi = as_register(0), registers.rsi = as_register(1), registers.rdx = as_register(2);
    registers.r10 = as_register(3), registers.r8 = as_register(4), registers.r9 = as_register(5);
    return registers;
  }

  pid_t pid_;
  bool is_ours_ = false;
  user_regs_struct registers_{};
};

}  // namespace virtuserns::test

#endif
