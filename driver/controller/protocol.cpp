#include "driver/controller/protocol.h"

#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/text.h"

namespace virtuserns::controller {

namespace {
constexpr std::size_t kMaxPlanBytes = 4 * 1024 * 1024;
}  // namespace

Result<std::vector<std::uint8_t>> read_plan_bytes() {
  struct stat st {};
  if (::fstat(kPlanFd, &st) != 0) return sys_fail("launch plan on descriptor 3");
  std::vector<std::uint8_t> bytes(S_ISREG(st.st_mode) ? static_cast<std::size_t>(st.st_size) + 1 : 64 * 1024);
  for (std::size_t have = 0;;) {
    // A file at an offset: the descriptor may be shared with whoever wrote it.
    const auto got = S_ISREG(st.st_mode)
                         ? ::pread(kPlanFd, bytes.data() + have, bytes.size() - have, static_cast<off_t>(have))
                         : ::read(kPlanFd, bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return sys_fail("read launch plan");
    have += static_cast<std::size_t>(got);
    if (have > kMaxPlanBytes) return fail(VIR_ERR_INTERNAL_ERROR, "launch plan: larger than 4 MiB");
    if (got == 0) {
      bytes.resize(have);
      return bytes;
    }
    if (have == bytes.size()) bytes.resize(2 * have);
  }
}

}  // namespace virtuserns::controller
