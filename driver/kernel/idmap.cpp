#include "driver/kernel/idmap.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "conf/base/file.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::kernel {

Result<void> write_id_maps(const DirFd& proc, pid_t pid, const IdMaps& maps) {
  const std::string process = std::to_string(pid);
  TRY(write_kernel_file_at(proc, process + "/uid_map", format_kernel_map(maps.uid)), "map user ids");
  TRY(write_kernel_file_at(proc, process + "/gid_map", format_kernel_map(maps.gid)), "map group ids");
  return {};
}

// Whoever it is born with waits for the other end of the pipe to close, and so never outlives the caller.
Result<NsFd> make_map_namespace(const DirFd& proc, const IdMaps& maps) {
  int pair[2];
  if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
  const Fd theirs(pair[0]);
  Fd ours(pair[1]);
  auto child = TRY(clone_process({CLONE_NEWUSER}), "make a user namespace");
  if (child.pid == 0) {
    ours.reset();
    char byte = 0;
    while (::read(theirs.get(), &byte, 1) < 0 && errno == EINTR) {
    }
    ::_exit(0);
  }
  const Errand holder(std::move(child.pidfd));
  TRY(write_id_maps(proc, child.pid, maps));
  return open_namespace(proc, child.pid, "user");
}

}  // namespace virtuserns::kernel
