// What an instance has on its disk, as an image.
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/compute/compute.h"
#include "driver/kernel/program.h"

namespace virtuserns::compute {
namespace {

constexpr std::size_t kMaxErrors = 4096;

Result<void> pack(const std::string& program, const std::string& base, const std::string& upper, const Fd& output) {
  const Fd errors(::memfd_create("errors", MFD_CLOEXEC));
  if (!errors) return sys_fail("make a file for what it says");
  auto running = TRY(kernel::Running::start({program, "pack", "--lower", base, upper, "-"}, output, errors));
  const int status = TRY(running.wait());
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  char said[kMaxErrors];
  const auto size = ::pread(errors.get(), said, sizeof said, 0);
  const std::string_view text(said, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  return fail(VIR_ERR_OPERATION_FAILED, text.empty() ? "it was killed" : printable(trim(text), 1024));
}

}  // namespace

// After a snapshot, or the death of whoever made one.
Result<void> Compute::run_on(Held& held) {
  auto record = *held.record();
  if (!record.is_paused_here) return {};
  if (TRY(hypervisor_.facts(record.spec.uuid)).state == PowerState::kPaused)
    TRY(hypervisor_.ensure_resumed(record.spec.uuid));
  record.is_paused_here = false;
  return save(held, std::move(record));
}

Result<std::uint64_t> Compute::snapshot(const std::string& uuid, const Fd& output) {
  auto held = TRY(hold_ready(uuid));
  const auto record = *held.record();
  if (!record.image)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the root of the instance is a volume: snapshot that");
  const bool is_running = TRY(hypervisor_.facts(uuid)).state == PowerState::kRunning;
  const auto disk = held.disk();
  const bool was_mounted = TRY(disk.is_mounted());
  Undo undo;
  TRY(disk.mount());
  if (!was_mounted) undo.add([&] { (void)disk.unmount(); });
  // So that it is of one moment.
  if (is_running) {
    undo.add([&] {
      if (const auto resumed = run_on(held); !resumed)
        log_error("compute", "instance " + uuid + " stays paused: " + resumed.error().text);
    });
    auto paused = record;
    paused.is_paused_here = true;
    TRY(save(held, std::move(paused)));
    TRY(hypervisor_.ensure_paused(uuid));
  }
  const auto base = TRY(images_.find(record.image->key));
  TRY(pack(images_.program(), base, disk.root() + "/upper", output), "pack the instance's files");
  struct stat found {};
  if (::fstat(output.get(), &found) != 0) return sys_fail("look at the snapshot");
  return static_cast<std::uint64_t>(found.st_size);
}

}  // namespace virtuserns::compute
