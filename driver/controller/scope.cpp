#include "driver/controller/scope.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/protocol.h"

namespace virtuserns::controller {

namespace {

// Longer than the daemon waits for systemd itself, which may be busy with a reload.
constexpr int kPlacedTimeoutMs = 45'000;

// The network's keeper, which was forked before the scope was there: in the scope's own group it would keep controllers from being
// switched on. It may be outside, where it is not ours to be moved, and does no harm.
void take_along(const DirFd& scope, const DirFd& proc) {
  const auto children = read_kernel_file_at(proc, "thread-self/children", 4096);
  if (!children) return;
  for (const auto pid : split_blanks(*children))
    (void)write_kernel_file_at(scope, "supervisor/cgroup.procs", std::string(pid));
}

}  // namespace

bool needs_scope(const LaunchPlan& plan) {
  return std::any_of(plan.before.begin(), plan.before.end(), [](const BeforeStep& step) {
    const auto* group = std::get_if<CgroupStep>(&step);
    return group && !group->scope.empty();
  });
}

Result<void> await_scope(int channel) {
  pollfd entry{channel, POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, kPlacedTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (ready <= 0)
    return fail(VIR_ERR_OPERATION_TIMEOUT, "wait for the scope: the daemon does not say that it is there");
  const auto packet = TRY(recv_packet(channel), "wait for the scope");
  if (packet.bytes.empty()) return fail(VIR_ERR_OPERATION_FAILED, "wait for the scope: the daemon is gone");
  (void)TRY(xdr::decode_exact<Placed>(packet.bytes), "wait for the scope");
  return {};
}

Result<void> enter_supervisor(const CgroupStep& step, const DirFd& proc) {
  const std::string path = step.mount + "/" + step.scope;
  const DirFd scope = TRY(open_directory(path), "scope");
  if (::mkdirat(scope.get(), "supervisor", 0755) != 0 && errno != EEXIST)
    return sys_fail("create group 'supervisor' in " + quote(path));
  TRY(write_kernel_file_at(scope, "supervisor/cgroup.procs", "0"), "enter group 'supervisor' in " + quote(path));
  take_along(scope, proc);
  return {};
}

}  // namespace virtuserns::controller
