#include "driver/kernel/clone.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::kernel {

Result<Cloned> clone_process(const CloneRequest& request) {
  int pidfd = -1;
  clone_args args{};
  args.flags = request.flags | CLONE_PIDFD;
  args.exit_signal = static_cast<std::uint64_t>(request.exit_signal);
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  if (request.cgroup) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(request.cgroup->get());
  }
  const long pid = ::syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) return sys_fail("clone process");
  Cloned cloned;
  cloned.pid = static_cast<pid_t>(pid);
  if (pid > 0) cloned.pidfd = PidFd(pidfd);
  return cloned;
}

Result<void> enter_namespaces(const PidFd& process, int flags) {
  if (::setns(process.get(), flags) != 0) return sys_fail("enter namespaces");
  return {};
}

Result<void> enter_namespace(const NsFd& ns, int flag) {
  if (::setns(ns.get(), flag) != 0) return sys_fail("enter namespace");
  return {};
}

Result<NsFd> open_namespace(const DirFd& proc, pid_t pid, const char* name) {
  const std::string path = std::to_string(pid) + "/ns/" + name;
  NsFd ns(::openat(proc.get(), path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!ns) return sys_fail("open namespace '" + path + "'");
  return ns;
}

bool is_initial_map(const std::string& text) {
  const auto words = split_blanks(text);
  return words.size() == 3 && words[0] == "0" && words[1] == "0" && words[2] == "4294967295";
}

Result<bool> is_initial_user_namespace(const DirFd& proc) {
  return is_initial_map(TRY(read_kernel_file_at(proc, "self/uid_map", 65536)));
}

Result<uid_t> owner_of_user_namespace(const NsFd& user_ns) {
  uid_t owner = 0;
  if (::ioctl(user_ns.get(), NS_GET_OWNER_UID, &owner) != 0) return sys_fail("owner of user namespace");
  return owner;
}

}  // namespace virtuserns::kernel
