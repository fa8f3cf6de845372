#include "tests/root/taken_over.h"

#if defined(__x86_64__)

#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <thread>

namespace virtuserns::test {
namespace {

TEST(TakenOver, WaitsUntilItIsInACall) {
  void* const shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto& may_wait = *new (shared) std::atomic<bool>(false);
  const pid_t pid = ::fork();
  if (pid == 0) {
    while (!may_wait) {
    }
    for (;;) ::pause();
  }
  std::thread later([&] {
    ::usleep(100'000);
    may_wait = true;
  });
  ::usleep(20'000);
  {
    TakenOver process(pid);
    EXPECT_TRUE(process);
    EXPECT_EQ(process ? process.call(SYS_getpid).result : 0, pid);
  }
  later.join();
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  ::munmap(shared, 4096);
}

}  // namespace
}  // namespace virtuserns::test

#endif
