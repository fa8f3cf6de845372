#include "tools/image/confined.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/idmap.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/pidfd.h"
#include "driver/kernel/seccomp.h"
#include "driver/kernel/seccomp_filter.h"
#include "tools/image/bounds.h"

namespace virtuserns::image {
namespace {

constexpr std::uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
// What decompressors may take: zstd's largest usual window is 128 MiB, that of xz -9 is 64 MiB.
constexpr rlim_t kMemory = 768u << 20, kDescriptors = 4096;

// What a domain may call, without whatever makes or reaches another process.
const std::vector<std::uint8_t>& filter() {
  static const auto program = [] {
    kernel::SeccompPolicy policy;
    policy.changes.deny = {"execve",     "execveat",   "fork",         "vfork",         "clone", "socket",
                           "socketpair", "connect",    "bind",         "ptrace",        "mount", "umount2",
                           "pivot_root", "chroot",     "unshare",      "setns",         "prctl", "kill",
                           "tkill",      "pidfd_open", "memfd_create", "io_uring_setup"};
    return kernel::compile_seccomp_filter(policy).program;
  }();
  return program;
}

// A change of ids takes the death signal back. A parent that had died before has left the pipe without a reader.
Result<void> stay_with_parent(const Fd& answer) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return sys_fail("set death signal");
  pollfd entry{answer.get(), 0, 0};
  if (::poll(&entry, 1, 0) != 0) return fail(VIR_ERR_INTERNAL_ERROR, "the parent is gone");
  return {};
}

Result<void> keep_descriptors(std::vector<int> kept) {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int fd = 0; fd < 3; ++fd)
    if (::dup2(null.get(), fd) < 0) return sys_fail("close the terminal");
  std::sort(kept.begin(), kept.end());
  unsigned first = 3;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (number > first && ::close_range(first, number - 1, 0) != 0) return sys_fail("close files");
    first = std::max(first, number + 1);
  }
  return ::close_range(first, ~0u, 0) == 0 ? Result<void>() : Result<void>(sys_fail("close files"));
}

Result<void> become_root_of(const NsFd& ids) {
  TRY(kernel::enter_namespace(ids, CLONE_NEWUSER));
  if (::setresgid(0, 0, 0) != 0 || ::setgroups(0, nullptr) != 0) return sys_fail("take the group");
  if (::setresuid(0, 0, 0) != 0) return sys_fail("take the id");
  return {};
}

Result<void> set_limits() {
  static constexpr std::pair<__rlimit_resource, rlim_t> kLimits[] = {
      {RLIMIT_AS, kMemory}, {RLIMIT_NOFILE, kDescriptors}, {RLIMIT_CORE, 0}, {RLIMIT_MEMLOCK, 0}};
  for (const auto& [resource, most] : kLimits) {
    const rlimit limit{most, most};
    if (::setrlimit(resource, &limit) != 0) return sys_fail("set resource limit " + std::to_string(resource));
  }
  return {};
}

Result<void> confine(const Confined& request, const Fd& answer) {
  TRY(stay_with_parent(answer));
  ::umask(022);
  // Names in archives are UTF-8; this locale is in the C library.
  if (!::setlocale(LC_CTYPE, "C.UTF-8")) return fail(VIR_ERR_NO_SUPPORT, "the C library has no locale C.UTF-8");
  const auto& program = filter();
  const auto stage = TRY(open_directory(request.stage));
  TRY(kernel::attach_mount(request.tree, stage));
  auto kept = request.descriptors;
  kept.push_back(answer.get());
  const int ids = ::fcntl(request.ids.get(), F_DUPFD_CLOEXEC, 3);
  if (ids < 0) return sys_fail("keep the namespace");
  NsFd own_ids(ids);
  kept.push_back(ids);
  TRY(keep_descriptors(kept));
  TRY(kernel::change_root(request.stage));
  TRY(kernel::leave_session_keyring());
  TRY(become_root_of(own_ids));
  own_ids.reset();
  TRY(stay_with_parent(answer));
  TRY(set_limits());
  TRY(kernel::limit_privileges(request.capabilities));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return sys_fail("set no_new_privs");
  (void)TRY(kernel::install_seccomp_filter(program, kernel::Refusals::kAnswered));
  return {};
}

Result<std::string> work_confined(const Confined& request, const Fd& answer,
                                  const std::function<Result<std::string>()>& work) {
  TRY(confine(request, answer), "confine");
  return work();
}

void write_all(const Fd& to, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto put = ::write(to.get(), bytes.data(), bytes.size());
    if (put <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
}

Result<std::string> read_answer(const Fd& from) {
  std::string answer;
  char buffer[8192];
  for (;;) {
    const auto got = ::read(from.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return sys_fail("read the answer");
    if (got == 0) return answer;
    answer.append(buffer, static_cast<std::size_t>(got));
    if (answer.size() > kMaxAnswer) return fail(VIR_ERR_OPERATION_FAILED, "the child says too much");
  }
}

Error ended_without_answer(int status) {
  std::string why = "the child that reads it ended with " + std::to_string(WEXITSTATUS(status));
  if (WIFSIGNALED(status))
    why = "the child that reads it was ended by signal " + std::to_string(WTERMSIG(status)) +
          ": it did what it may not, or there was no memory";
  return fail(VIR_ERR_OPERATION_FAILED, why);
}

// How an answer begins. The parent believes no more of an error than whether the image is larger than it may be, here or anywhere.
constexpr char kGood = '+', kBad = '-', kLarge = '>', kFull = '!';

char verdict_on(const Error& error) {
  if (error.sys_errno == ENOSPC) return kFull;
  return error.code == kTooLarge ? kLarge : kBad;
}

}  // namespace

Result<NsFd> make_child_ids() {
  const IdMapLines lines{{0, kFirstId, kIdCount}};
  return kernel::make_map_namespace(TRY(open_directory("/proc")), {lines, lines});
}

Result<std::string> run_confined(const Confined& request, const std::function<Result<std::string>()>& work) {
  int pair[2];
  if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
  const Fd ours(pair[0]);
  Fd theirs(pair[1]);
  auto child = TRY(kernel::clone_process({kNamespaces}), "make a child");
  if (child.pid == 0) {
    const auto done = work_confined(request, theirs, work);
    write_all(theirs, done ? kGood + *done : verdict_on(done.error()) + done.error().text);
    ::_exit(0);
  }
  theirs.reset();
  Undo undo;
  undo.add([&] {
    (void)kernel::send_signal(child.pidfd, SIGKILL);
    (void)kernel::wait_process(child.pidfd);
  });
  auto answer = TRY(read_answer(ours));
  undo.commit();
  const auto status = TRY(kernel::wait_process(child.pidfd));
  if (answer.empty() || !WIFEXITED(*status) || WEXITSTATUS(*status) != 0) return ended_without_answer(*status);
  const char verdict = answer.front();
  answer.erase(0, 1);
  if (verdict == kGood) return answer;
  auto error = fail(verdict == kLarge ? kTooLarge : VIR_ERR_OPERATION_FAILED, printable(answer, 2048));
  if (verdict == kFull) error.sys_errno = ENOSPC;
  return error;
}

}  // namespace virtuserns::image
