#include "driver/compute/packing.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/kernel/program.h"

namespace virtuserns::compute {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxErrors = 4096;
constexpr int kLookMs = 1000;

// As long as it works one of them grows.
struct Progress {
  off_t size = 0;
  std::chrono::nanoseconds used{};
  bool operator==(const Progress&) const = default;
};

Progress look_at(const kernel::Running& running, const Fd& output) {
  struct stat file {};
  return {::fstat(output.get(), &file) == 0 ? file.st_size : 0, running.time_used()};
}

// Its wait status. Killed by ~Running else.
Result<int> await(kernel::Running& running, const Fd& output, const Fd& stop, std::chrono::seconds patience) {
  auto before = look_at(running, output);
  auto moved_at = Clock::now();
  while (true) {
    pollfd polled[] = {{running.process().get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
    if (::poll(polled, 2, kLookMs) < 0 && errno != EINTR) return sys_fail("wait for a program");
    if (polled[0].revents != 0) return running.wait();
    if (polled[1].revents != 0) return fail(VIR_ERR_NO_DOMAIN, "the instance is being destroyed, which has ended it");
    const auto now = look_at(running, output);
    if (now != before) {
      before = now;
      moved_at = Clock::now();
    } else if (Clock::now() - moved_at >= patience) {
      return fail(VIR_ERR_OPERATION_TIMEOUT, "nothing has come of it for " + std::to_string(patience.count()) +
                                                 " seconds, and it was ended: see whether the disks of this host "
                                                 "answer, and ask again");
    }
  }
}

Result<void> run(const std::vector<std::string>& argv, const Fd& output, const Fd& stop,
                 std::chrono::seconds patience) {
  const Fd errors(::memfd_create("errors", MFD_CLOEXEC));
  if (!errors) return sys_fail("make a file for what it says");
  auto running = TRY(kernel::Running::start(argv, output, errors));
  const int status = TRY(await(running, output, stop, patience));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  char said[kMaxErrors];
  const auto size = ::pread(errors.get(), said, sizeof said, 0);
  const std::string_view text(said, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  return fail(VIR_ERR_OPERATION_FAILED, text.empty() ? "it was killed" : printable(trim(text), 1024));
}

}  // namespace

Result<void> run_packing(const std::vector<std::string>& argv, const Fd& output, const Fd& stop,
                         std::chrono::seconds patience) {
  // Its size is what tells how far it is.
  if (::ftruncate(output.get(), 0) != 0 || ::lseek(output.get(), 0, SEEK_SET) != 0)
    return sys_fail("empty the file of the image");
  auto done = run(argv, output, stop, patience);
  // Half an image is nobody's, and takes space for as long as its owner has not heard of it.
  if (!done && ::ftruncate(output.get(), 0) != 0)
    log_warning("compute", "half an image stays: " + sys_fail("empty its file").text);
  return done;
}

}  // namespace virtuserns::compute
