#include "driver/controller/jail.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/controller/cage.h"
#include "driver/controller/confine.h"
#include "driver/controller/consoles.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/pidfd.h"
#include "driver/kernel/seccomp.h"

namespace virtuserns::controller {

namespace {

constexpr std::uint64_t kJailNamespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;

// The jail's.
struct Ends {
  Fd output, errors, life;
  Fd input, program;  // found before the jail hides them
};

Result<std::pair<Fd, Fd>> make_pipe() {
  int pair[2];
  if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
  return std::pair(Fd(pair[0]), Fd(pair[1]));
}

// The parent is outside of the pid namespace and cannot be asked for by getppid: one that had died before the death signal was
// set has left the pipe without a writer.
Result<void> stay_with_parent(const Fd& life) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return sys_fail("set death signal");
  pollfd entry{life.get(), 0, 0};
  if (::poll(&entry, 1, 0) != 0) return fail(VIR_ERR_INTERNAL_ERROR, "the parent is gone");
  return {};
}

Result<void> make_file(const DirFd& root, const char* name) {
  if (::mknodat(root.get(), name, S_IFREG | 0666, 0) != 0) return sys_fail(std::string("create '") + name + "'");
  return {};
}

Result<void> show(const DirFd& root, const std::string& name) {
  const MountFd mount = TRY(kernel::clone_mount("/" + name, kernel::Depth::kTopOnly));
  TRY(kernel::set_mount_attributes(mount, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0,
                                   kernel::Depth::kTopOnly));
  return kernel::attach_mount(mount, root, name);
}

// /lib and /lib64 are links into /usr on hosts of today, and directories on others.
Result<void> show_libraries(const DirFd& root, const std::string& name) {
  struct stat st {};
  const std::string path = "/" + name;
  if (::lstat(path.c_str(), &st) != 0) return {};
  if (S_ISLNK(st.st_mode)) {
    char to[256];
    const auto size = ::readlink(path.c_str(), to, sizeof to - 1);
    if (size < 0) return sys_fail("read link " + quote(path));
    to[size] = 0;
    if (::symlinkat(to, root.get(), name.c_str()) != 0) return sys_fail("link " + quote(name));
    return {};
  }
  if (::mkdirat(root.get(), name.c_str(), 0755) != 0) return sys_fail("create " + quote(name));
  return show(root, name);
}

Result<void> enter_jail_root(const JailRequest& request) {
  MountFd tmpfs =
      TRY(kernel::make_filesystem("tmpfs", {{"size", "1m"}, {"mode", "0755"}}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  const Fd place(::open(request.stage.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place) return sys_fail("open " + quote(request.stage));
  TRY(kernel::attach_mount(tmpfs, place));
  const DirFd root(tmpfs.release());
  for (const char* name : {"usr", "images", "dev", "dev/fd"})
    if (::mkdirat(root.get(), name, 0755) != 0) return sys_fail(std::string("create '") + name + "'");
  for (const char* name : {"dev/null", "dev/fd/3"}) TRY(make_file(root, name));
  for (const char* name : {"lib", "lib64"}) TRY(show_libraries(root, name));
  TRY(show(root, "usr"));
  for (std::size_t i = 0; i < request.images.size(); ++i) {
    const std::string name = "images/" + std::to_string(i);
    TRY(make_file(root, name.c_str()));
    TRY(kernel::attach_mount(request.images[i], root, name));
  }
  return kernel::change_root(request.stage);
}

// 0, 1, 2 and the given ones from 3 on; the program after them.
Result<int> keep_files(const JailRequest& request, const Ends& ends) {
  std::vector<int> wanted = {ends.input.get(), ends.output.get(), ends.errors.get()};
  wanted.insert(wanted.end(), request.files.begin(), request.files.end());
  wanted.push_back(ends.program.get());
  const int count = static_cast<int>(wanted.size());
  std::vector<int> high;  // out of the way first: a source may have the number of a target
  for (const int file : wanted) {
    high.push_back(::fcntl(file, F_DUPFD_CLOEXEC, 64));
    if (high.back() < 0) return sys_fail("duplicate descriptor");
  }
  for (int fd = 0; fd < count; ++fd)
    if (::dup3(high[static_cast<std::size_t>(fd)], fd, fd + 1 == count ? O_CLOEXEC : 0) < 0)
      return sys_fail("place descriptor");
  if (::close_range(static_cast<unsigned>(count), ~0u, 0) != 0) return sys_fail("close files");
  return count - 1;
}

Result<void> become_nobody(OpensFiles opens_files) {
  const std::uint64_t kept = opens_files == OpensFiles::kYes ? std::uint64_t{1} << CAP_DAC_OVERRIDE : 0;
  const rlimit no_core{0, 0}, files{1024, 1024};
  if (::setrlimit(RLIMIT_CORE, &no_core) != 0 || ::setrlimit(RLIMIT_NOFILE, &files) != 0)
    return sys_fail("set resource limits");
  TRY(kernel::limit_bounding_set(kept));
  if (::setgroups(0, nullptr) != 0) return sys_fail("drop groups");
  if (::setresgid(kIdOfNobody, kIdOfNobody, kIdOfNobody) != 0) return sys_fail("take the group of nobody");
  if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return sys_fail("keep capabilities");
  if (::setresuid(kIdOfNobody, kIdOfNobody, kIdOfNobody) != 0) return sys_fail("take the id of nobody");
  TRY(kernel::hand_on_capabilities(kept));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return sys_fail("set no_new_privs");
  return {};
}

// Who ends all that is in a scope (systemd, at the end of the machine) must not end what a file system is written to before it
// is unmounted: that is the controller's, which hears the same.
void ignore_ends_of_others() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGHUP}) ::sigaddset(&set, signal);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

Result<void> run_jailed(const JailRequest& request, const Ends& ends) {
  TRY(stay_with_parent(ends.life));
  reset_signals();
  ignore_ends_of_others();
  ::umask(022);
  TRY(enter_jail_root(request));
  TRY(become_nobody(request.opens_files));
  TRY(stay_with_parent(ends.life));  // again: the change of ids took it back (prctl(2))
  const int program = TRY(keep_files(request, ends));
  std::string name = request.program;
  std::vector<char*> argv = {name.data()};
  auto arguments = request.arguments;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  char* none[] = {nullptr};
  (void)TRY(kernel::install_seccomp_filter(request.filter, kernel::Refusals::kAnswered));
  ::execveat(program, "", argv.data(), none, AT_EMPTY_PATH);
  return sys_fail("run " + quote(request.program));
}

}  // namespace

Result<Jailed> start_in_jail(const JailRequest& request) {
  Jailed jailed;
  Ends ends;
  std::tie(jailed.output, ends.output) = TRY(make_pipe());
  std::tie(jailed.errors, ends.errors) = TRY(make_pipe());
  std::tie(ends.life, jailed.life) = TRY(make_pipe());
  ends.input = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!ends.input) return sys_fail("open '/dev/null'");
  ends.program = Fd(::open(request.program.c_str(), O_PATH | O_CLOEXEC));
  if (!ends.program) return sys_fail("open " + quote(request.program));
  auto cloned = TRY(kernel::clone_process({kJailNamespaces, nullptr, 0}), "clone");
  if (cloned.pid == 0) {
    jailed.life.reset();
    ::dup2(ends.errors.get(), 2);
    const auto failed = run_jailed(request, ends);
    (void)!::write(2, failed.error().text.data(), failed.error().text.size());
    ::_exit(127);
  }
  jailed.process = std::move(cloned.pidfd);
  return jailed;
}

Result<Said> await_jailed(Jailed jailed, int timeout_ms) {
  Said said;
  Undo undo;
  undo.add([&] {
    (void)kernel::send_signal(jailed.process, SIGKILL);
    (void)kernel::wait_process(jailed.process);
  });
  const auto deadline = monotonic_ms() + timeout_ms;
  const auto left_ms = [&] { return static_cast<int>(std::max<std::int64_t>(0, deadline - monotonic_ms())); };
  const std::pair<Fd*, std::string*> streams[] = {{&jailed.output, &said.output}, {&jailed.errors, &said.errors}};
  while (jailed.output || jailed.errors) {
    pollfd entries[] = {{jailed.output.get(), POLLIN, 0}, {jailed.errors.get(), POLLIN, 0}};
    const int ready = ::poll(entries, 2, left_ms());
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fail(VIR_ERR_OPERATION_TIMEOUT, "it does not end");
    for (int i = 0; i < 2; ++i) {
      if (entries[i].revents == 0) continue;
      const auto& [file, text] = streams[i];
      char buffer[4096];
      const auto size = ::read(file->get(), buffer, sizeof buffer);
      if (size <= 0)
        file->reset();
      else
        text->append(buffer, static_cast<std::size_t>(size));
      if (text->size() > kMaxSaid) return fail(VIR_ERR_OPERATION_FAILED, "it says too much");
    }
  }
  const auto status = TRY(kernel::wait_process(jailed.process, left_ms()));
  if (!status) return fail(VIR_ERR_OPERATION_TIMEOUT, "it does not end");
  undo.commit();
  said.status = *status;
  return said;
}

}  // namespace virtuserns::controller
