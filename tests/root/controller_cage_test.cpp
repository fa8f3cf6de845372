// A controller is confined once its container runs (promise 6 of docs/security.md). It is taken over here as an attacker
// would: by ptrace(2), which makes it do whatever system call we like. Each refusal is beside a call that goes through.
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <fstream>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/controller/cage.h"
#include "driver/controller/stem.h"
#include "driver/kernel/caps.h"
#include "tests/root/taken_over.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;
namespace fs = std::filesystem;

std::string proc_of(pid_t pid) { return "/proc/" + std::to_string(pid); }

std::string field(pid_t pid, const std::string& name) {
  std::ifstream status(proc_of(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name + ":")) return std::string(trim(std::string_view(line).substr(name.size() + 1)));
  return "none";
}

bool is_alive(pid_t pid) { return field(pid, "State").substr(0, 1).find_first_of("RSD") == 0; }

bool is_gone(pid_t pid) {
  for (int i = 0; i < 5000 * time_factor() && is_alive(pid); ++i) ::usleep(1000);
  return !is_alive(pid);
}

std::string hex16(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

#if defined(__x86_64__)

struct Forbidden {
  const char* name;
  long number;
  std::array<long, 6> arguments;
};

// `path` leads nowhere, and all of them fail or do nothing, should they ever get through.
std::vector<Forbidden> forbidden_calls(long path) {
  const long at = AT_FDCWD;
  return {{"socket", SYS_socket, {AF_INET, SOCK_STREAM}},
          {"socketpair of another family", SYS_socketpair, {AF_INET, SOCK_STREAM, 0, path}},
          {"connect", SYS_connect, {1, path, 16}},
          {"mount", SYS_mount, {path, path, path}},
          {"umount2", SYS_umount2, {path}},
          {"move_mount", SYS_move_mount, {at, path, at, path}},
          {"open_tree", SYS_open_tree, {at, path}},
          {"pivot_root", SYS_pivot_root, {path, path}},
          {"chroot", SYS_chroot, {path}},
          {"setns", SYS_setns, {0}},
          {"unshare", SYS_unshare, {0}},
          {"open", SYS_open, {path, O_RDONLY}},
          {"openat for writing", SYS_openat, {at, path, O_WRONLY}},
          {"openat for both", SYS_openat, {at, path, O_RDWR}},
          {"openat that creates", SYS_openat, {at, path, O_CREAT, 0600}},
          {"openat2", SYS_openat2, {at, path, path, 24}},
          {"open_by_handle_at", SYS_open_by_handle_at, {at, path}},
          {"unlinkat", SYS_unlinkat, {at, path}},
          {"renameat2", SYS_renameat2, {at, path, at, path}},
          {"fchownat", SYS_fchownat, {at, path}},
          {"ftruncate", SYS_ftruncate, {-1, 0}},
          {"execve", SYS_execve, {path}},
          {"execveat", SYS_execveat, {at, path}},
          {"clone", SYS_clone, {CLONE_SIGHAND | SIGCHLD}},
          {"clone3", SYS_clone3, {path, 0}},
          {"kill", SYS_kill, {1, 0}},
          {"tgkill", SYS_tgkill, {1, 1, 0}},
          {"rt_sigqueueinfo", SYS_rt_sigqueueinfo, {1, 0, path}},
          {"pidfd_open", SYS_pidfd_open, {1}},
          {"pidfd_send_signal", SYS_pidfd_send_signal, {0, 0}},
          {"pidfd_getfd", SYS_pidfd_getfd, {0, 0}},
          {"fcntl that makes the kernel signal", SYS_fcntl, {0, F_SETOWN, 1}},
          {"ptrace", SYS_ptrace, {PTRACE_SEIZE, 0}},
          {"process_vm_readv", SYS_process_vm_readv, {0}},
          {"prctl", SYS_prctl, {15, path}},
          {"capset", SYS_capset, {path, path}},
          {"setuid", SYS_setuid, {0}},
          {"seccomp", SYS_seccomp, {1, 0, path}},
          {"keyctl", SYS_keyctl, {0}},
          {"bpf", SYS_bpf, {0}},
          {"init_module", SYS_init_module, {path, 0, path}},
          {"reboot", SYS_reboot, {0}},
          {"io_uring_setup", SYS_io_uring_setup, {1, path}},
          {"memfd_create", SYS_memfd_create, {path}},
          {"mmap of code", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
          {"mprotect", SYS_mprotect, {0, 0, PROT_EXEC}},
          {"rt_sigaction", SYS_rt_sigaction, {SIGSYS, 0, 0, 8}},
          {"ioctl of terminals", SYS_ioctl, {0, TIOCSTI, path}},
          {"perf_event_open", SYS_perf_event_open, {path}}};
}

TEST(Cage, ATakenOverControllerIsStopped) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  {
    TakenOver controller(domain.controller_pid());
    ASSERT_TRUE(controller);
    const long path = controller.text("/nowhere");
    for (const auto& forbidden : forbidden_calls(path))
      EXPECT_TRUE(controller.call(forbidden.number, forbidden.arguments).is_refused) << forbidden.name;
    // It is our way to make calls that works, and the filter that judges: this is one that supervising needs.
    const auto user = controller.call(SYS_geteuid);
    EXPECT_FALSE(user.is_refused);
    EXPECT_EQ(user.result, kIdOfNobody);
  }
  EXPECT_TRUE(domain.status());
  // And the same without a filter: of the calls above one that does no harm.
  TakenOver stem(stem_of(domain.controller_pid()));
  ASSERT_TRUE(stem);
  EXPECT_FALSE(stem.call(SYS_pidfd_send_signal, {0, 0}).is_refused);
}

// Directories of the host lead to all of it by "..", also out of a root of one's own.
TEST(Cage, NoDescriptorOfTheControllerLeadsToTheHost) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  struct stat secret {};
  ASSERT_EQ(::stat("/etc/shadow", &secret), 0);
  const auto reaches = [&](pid_t pid) {
    std::string found;
    std::vector<int> files = {AT_FDCWD};
    for (const auto& entry : fs::directory_iterator(proc_of(pid) + "/fd"))
      files.push_back(std::atoi(entry.path().filename().c_str()));
    TakenOver process(pid);
    EXPECT_TRUE(process);
    for (const char* path : {"/etc/shadow", "../../../../../../../../etc/shadow", "1/root/etc/shadow"})
      for (const int file : files) {
        const auto opened = process.call(SYS_openat, {file, process.text(path), O_RDONLY});
        if (opened.result < 0) continue;
        struct stat st {};
        const std::string link = proc_of(pid) + "/fd/" + std::to_string(opened.result);
        if (::stat(link.c_str(), &st) == 0 && st.st_dev == secret.st_dev && st.st_ino == secret.st_ino)
          found += " " + std::string(path) + " by " +
                   fs::read_symlink(proc_of(pid) + "/fd/" + std::to_string(file)).string();
        process.call(SYS_close, {opened.result});
      }
    return found;
  };
  EXPECT_EQ(reaches(domain.controller_pid()), "");
  EXPECT_NE(reaches(stem_of(domain.controller_pid())), "");  // this way of looking finds what there is
  EXPECT_TRUE(domain.status());
}

// A process of host root that has no capability, which a controller that is root with no more than CAP_KILL could look into.
class PlainRoot {
 public:
  PlainRoot() : pid_(::fork()) {
    if (pid_ != 0) return;
    ::setenv("SECRET", "of host root", 1);
    ::setgroups(0, nullptr);
    const bool is_plain = kernel::limit_bounding_set(0) && kernel::limit_capabilities(0);
    ::execl("/bin/sleep", is_plain ? "sleep" : "", "1000", nullptr);
    ::_exit(1);
  }
  ~PlainRoot() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  PlainRoot(const PlainRoot&) = delete;
  PlainRoot& operator=(const PlainRoot&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool is_ready() const {
    for (int i = 0; i < 2000 * time_factor() && field(pid_, "Name") != "sleep"; ++i) ::usleep(1000);
    return field(pid_, "Name") == "sleep" && field(pid_, "CapPrm") == hex16(0);
  }

 private:
  pid_t pid_;
};

// What is host root's alone in /proc, and what it needs of it.
TEST(Cage, ATakenOverControllerReadsWhatAnybodyMay) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot);
  PlainRoot other;
  ASSERT_TRUE(other.is_ready());
  const std::string pid = std::to_string(other.pid());
  const auto opens = [&](pid_t who, const std::string& path) {
    TakenOver process(who);
    EXPECT_TRUE(process);
    for (const auto& entry : fs::directory_iterator(proc_of(who) + "/fd")) {
      const Fd mine(::open((proc_of(who) + "/fd/" + entry.path().filename().string()).c_str(), O_PATH | O_CLOEXEC));
      struct statfs st {};
      struct stat root {};
      if (!mine || ::fstatfs(mine.get(), &st) != 0 || st.f_type != PROC_SUPER_MAGIC) continue;
      if (::fstat(mine.get(), &root) != 0 || !S_ISDIR(root.st_mode)) continue;
      const auto opened =
          process.call(SYS_openat, {std::atoi(entry.path().filename().c_str()), process.text(path), O_RDONLY});
      if (opened.result < 0) return false;
      process.call(SYS_close, {opened.result});
      return true;
    }
    ADD_FAILURE() << "it has no procfs";
    return false;
  };
  const pid_t controller = domain.controller_pid(), stem = stem_of(controller);
  for (const std::string& path : {pid + "/environ", pid + "/root/etc/shadow", pid + "/maps", pid + "/fd/0",
                                  std::string("sys/kernel/cad_pid"), std::string("kpagecount")}) {
    if (!fs::exists("/proc/" + path)) continue;
    EXPECT_FALSE(opens(controller, path)) << path;
    EXPECT_TRUE(opens(stem, path)) << path;  // this way of looking finds what there is
  }
  for (const char* name : {"/comm", "/status", "/stat"})
    EXPECT_TRUE(opens(controller, std::to_string(boot->init_pid) + name)) << name;
  // And all that it does for a daemon goes on.
  for (const bool is_frozen : {true, false}) {
    ASSERT_TRUE(domain.ask(FreezeRequest{is_frozen}));
    const auto status = domain.status();
    ASSERT_TRUE(status);
    EXPECT_EQ(status->is_frozen, is_frozen);
  }
  domain.reconnect();
  EXPECT_TRUE(domain.status());
}

TEST(Cage, ARefusedCallIsToldInTheLogAndTheControllerGoesOn) {
  RootTree tree;
  const std::string log = tree.temp() + "/log";
  // Standard error of a controller is the domain's log.
  const Fd file(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const Fd saved(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100));
  ASSERT_GE(::dup2(file.get(), STDERR_FILENO), 0);
  Domain domain(make_plan_for(tree, "sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_GE(::dup2(saved.get(), STDERR_FILENO), 0);
  ASSERT_TRUE(boot);
  {
    TakenOver controller(domain.controller_pid());
    ASSERT_TRUE(controller);
    controller.go_on_with(SYS_socket, {AF_INET, SOCK_STREAM});
  }
  ASSERT_TRUE(domain.status());
  const auto told = read_file(log, 65536);
  ASSERT_TRUE(told);
  EXPECT_NE(told->find("refused itself system call    " + std::to_string(SYS_socket)), std::string::npos) << *told;
}

// The controller's end of the talk with its stem.
Fd socket_to_stem(pid_t controller) {
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, controller, 0)));
  for (const auto& entry : fs::directory_iterator(proc_of(controller) + "/fd")) {
    Fd file(
        static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), std::atoi(entry.path().filename().c_str()), 0)));
    int type = 0;
    int is_listening = 0;
    ucred peer{};
    socklen_t type_size = sizeof type, listening_size = sizeof is_listening, peer_size = sizeof peer;
    if (file && ::getsockopt(file.get(), SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 && type == SOCK_SEQPACKET &&
        ::getsockopt(file.get(), SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &listening_size) == 0 && !is_listening &&
        ::getsockopt(file.get(), SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) == 0 && peer.pid == controller)
      return file;
  }
  return {};
}

// "": done; else why not.
std::string ask(const Fd& socket, const StemAsk& request) {
  if (!send_packet(socket.get(), xdr::encode(request))) return "not sent";
  const auto packet = recv_packet(socket.get());
  if (!packet || packet->bytes.empty()) return "closed";
  const auto answer = xdr::decode_exact<StemAnswer>(packet->bytes);
  if (!answer) return "nonsense";
  const auto* error = std::get_if<WireError>(&*answer);
  return error ? error->text : "";
}

TEST(Cage, ATakenOverControllerGetsNothingForOthersFromItsStem) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot);
  const pid_t controller = domain.controller_pid(), stem = stem_of(controller);
  const pid_t bystander = ::fork();
  if (bystander == 0) ::_exit((::pause(), 0));
  const Fd socket = socket_to_stem(controller);
  ASSERT_TRUE(socket && controller > 0 && bystander > 0);
  ::kill(controller, SIGSTOP);  // it would hear our answers
  EXPECT_EQ(ask(socket, SignalChildAsk{static_cast<std::int32_t>(boot->init_pid), 0, false}), "");
  for (const pid_t other : {pid_t{1}, pid_t{0}, pid_t{-1}, ::getpid(), bystander})
    for (const bool is_group : {false, true})
      EXPECT_NE(ask(socket, SignalChildAsk{other, SIGKILL, is_group}), "") << other;
  EXPECT_NE(ask(socket, SignalAsk{static_cast<std::int32_t>(bystander), SIGKILL}), "");
  EXPECT_EQ(ask(socket, WriteGroupsAsk{{{{"pids", "pids.max", "65"}}}}), "");
  for (const auto& [controller_name, file, value] : {std::array{"pids", "cgroup.procs", "1"},
                                                     {"pids", "tasks", "1"},
                                                     {"devices", "devices.allow", "a"},
                                                     {"pids", "../pids.max", "1"},
                                                     {"memory", "memory.force_empty", "0"},
                                                     {"pids", "notify_on_release", "1"}})
    EXPECT_NE(ask(socket, WriteGroupsAsk{{{{controller_name, file, value}}}}), "") << file;
  EXPECT_NE(ask(socket, RotateLogAsk{1}), "");
  EXPECT_NE(ask(socket, EnterAsk{}), "");  // without a channel
  EXPECT_TRUE(is_alive(bystander) && is_alive(stem));
  // What none of ours would say ends it, and with it all of the domain.
  const std::uint8_t nonsense[] = {0, 0, 0, 99};
  EXPECT_TRUE(send_packet(socket.get(), nonsense));
  EXPECT_TRUE(is_gone(stem));
  ::kill(controller, SIGCONT);
  EXPECT_TRUE(domain.wait_controller());
  EXPECT_TRUE(is_gone(boot->init_pid));
  EXPECT_EQ(domain.reap(), 0);
  ::kill(bystander, SIGKILL);
  ::waitpid(bystander, nullptr, 0);
}

// Whose children they are, and who reaps none.
TEST(Cage, ATakenOverControllerCannotMakeItsStemForkWithoutEnd) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot);
  const pid_t controller = domain.controller_pid();
  const Fd socket = socket_to_stem(controller);
  ASSERT_TRUE(socket && controller > 0);
  ::kill(controller, SIGSTOP);
  EnterAsk enter;
  for (const char* word : {"/bin/sh", "-c", "exit 0"}) enter.command.arguments.emplace_back(word);
  std::size_t entered = 0;
  std::vector<Fd> channels;
  for (std::size_t i = 0; i < kMaxCommands + 20; ++i) {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    channels.emplace_back(pair[0]);
    const Fd theirs(pair[1]);
    const int file = theirs.get();
    ASSERT_TRUE(send_packet(socket.get(), xdr::encode(StemAsk(enter)), std::span(&file, 1)));
    const auto packet = recv_packet(socket.get());
    ASSERT_TRUE(packet && !packet->bytes.empty());
    const auto answer = xdr::decode_exact<StemAnswer>(packet->bytes);
    ASSERT_TRUE(answer);
    if (std::holds_alternative<Joined>(*answer)) ++entered;
  }
  EXPECT_EQ(entered, kMaxCommands);
  EXPECT_EQ(ask(socket, BootAsk{}), "the last boot of the domain is not over");
  EXPECT_TRUE(is_alive(boot->init_pid));
  ::kill(controller, SIGCONT);
  channels.clear();
  domain.kill_controller();
  EXPECT_TRUE(is_gone(boot->init_pid));
  EXPECT_EQ(domain.reap(), 0);
}

#endif

TEST(Cage, ControllerAndStemHoldWhatTheyNeed) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const pid_t controller = domain.controller_pid(), stem = stem_of(controller);
  ASSERT_GT(stem, 0);
  const std::string kill = hex16(capability_bit(5)), none = hex16(0), all_of_stem = hex16(privileges_of_stem());
  for (const char* set : {"CapPrm", "CapEff", "CapBnd"}) {
    EXPECT_EQ(field(controller, set), kill) << set;
    EXPECT_EQ(field(stem, set), all_of_stem) << set;
  }
  for (const char* set : {"CapInh", "CapAmb"}) EXPECT_EQ(field(controller, set) + field(stem, set), none + none);
  EXPECT_EQ(field(controller, "NoNewPrivs") + field(controller, "Seccomp"), "12");
  EXPECT_EQ(field(stem, "NoNewPrivs") + field(stem, "Seccomp"), "00");  // its children would inherit both
  // CAP_SYS_MODULE, _RAWIO, _BOOT, _TIME, CAP_DAC_READ_SEARCH, CAP_SYSLOG, CAP_BPF: what no domain is ever allowed.
  for (const int capability : {16, 17, 22, 25, 2, 34, 39})
    EXPECT_EQ(privileges_of_stem() & capability_bit(capability), 0u);
  // Nothing of the host in view, and no memory that others may read.
  EXPECT_EQ(fs::read_symlink(proc_of(controller) + "/root").filename(), "empty");
  for (const pid_t pid : {controller, stem}) {
    struct stat st {};
    // Of a process that is not dumpable all files are host root's; ours is host root too, so by what is denied.
    ASSERT_EQ(::stat((proc_of(pid) + "/mem").c_str(), &st), 0);
    const pid_t stranger = ::fork();
    if (stranger == 0) {
      const bool is_stranger = ::setresuid(kHostId, kHostId, kHostId) == 0;
      ::_exit(is_stranger && ::open((proc_of(pid) + "/mem").c_str(), O_RDONLY) < 0 ? 0 : 1);
    }
    int status = -1;
    ::waitpid(stranger, &status, 0);
    EXPECT_EQ(status, 0);
  }
  for (const auto& step : domain.plan().before)
    if (const auto* group = std::get_if<CgroupStep>(&step)) {
      const auto inside = read_kernel_file(group->mount + "/" + group->path + "/cgroup.procs");
      ASSERT_TRUE(inside);
      for (const pid_t pid : {controller, stem})
        EXPECT_EQ(("\n" + *inside).find("\n" + std::to_string(pid) + "\n"), std::string::npos) << group->mount;
    }
}

TEST(Cage, StemAndControllerEndTogetherAndTakeTheContainerAlong) {
  RootTree tree;
  const auto before = snapshot();
  for (const bool kills_stem : {true, false}) {
    Domain domain(make_plan_for(tree, "sleep 1000 & sleep 1000"));
    const auto boot = domain.start_ok();
    ASSERT_TRUE(boot);
    const pid_t controller = domain.controller_pid(), stem = stem_of(controller);
    ASSERT_TRUE(stem > 0 && controller > 0);  // others are names of many processes to kill(2)
    ::kill(kills_stem ? stem : controller, SIGKILL);
    EXPECT_TRUE(domain.wait_controller());
    EXPECT_TRUE(is_gone(stem));
    EXPECT_TRUE(is_gone(boot->init_pid));
    EXPECT_EQ(domain.reap(), 0);
    EXPECT_EQ(snapshot(), before);
  }
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const pid_t stem = stem_of(domain.controller_pid());
  ASSERT_TRUE(domain.ask(DestroyRequest{}));
  EXPECT_TRUE(domain.wait_controller());
  EXPECT_FALSE(fs::exists(proc_of(stem)));  // it has left before the controller, which has reaped it
}

// A boot changes ids, which takes the death signal of whoever makes it: one that cannot see its socket close needs it.
TEST(Cage, AStoppedStemEndsWithItsControllerAfterEveryBoot) {
  RootTree tree;
  const auto before = snapshot();
  for (int boots = 1; boots <= 2; ++boots) {
    Domain domain(make_plan_for(tree, "sleep 1000"));
    ASSERT_TRUE(domain.start_ok());
    if (boots == 2) {
      ASSERT_TRUE(domain.ask(ResetRequest{}));
    }
    const pid_t controller = domain.controller_pid(), stem = stem_of(controller);
    ASSERT_TRUE(stem > 0 && controller > 0);
    // One that was born this moment has no death signal yet; its words change after it has.
    const auto is_ready = [&] {
      std::ifstream cmdline(proc_of(stem) + "/cmdline");
      const std::string words{std::istreambuf_iterator<char>(cmdline), {}};
      return words.find(kStemName) != std::string::npos;
    };
    for (int i = 0; i < 5000 && !is_ready(); ++i) ::usleep(1000);
    ASSERT_TRUE(is_ready());
    ::kill(stem, SIGSTOP);
    ::kill(controller, SIGKILL);
    EXPECT_TRUE(domain.wait_controller());
    const bool has_ended = is_gone(stem);
    EXPECT_TRUE(has_ended) << "after boot " << boots;
    if (!has_ended) ::kill(stem, SIGKILL);
    EXPECT_EQ(domain.reap(), 0);
    EXPECT_EQ(snapshot(), before);
  }
}

// What no_new_privs would take away. The same program is set-user-id root for user 33 of the container.
TEST(Cage, SetUserIdProgramsInsideWorkAtEveryBoot) {
  RootTree tree;
  fs::copy_file(tree.path() + "/bin/probe", tree.path() + "/bin/set-user-id");
  ASSERT_EQ(::chmod((tree.path() + "/bin/set-user-id").c_str(), 04755), 0);
  ::chmod((tree.path() + "/out").c_str(), 0777);
  auto plan = make_plan_for(tree, "set-user-id ids >> /out/ids; echo x > /out/done; read go; reboot -f");
  plan.inside.insert(plan.inside.end() - 1, UserStep{"+33", ""});
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  for (int boot = 1; boot <= 2; ++boot) {
    ASSERT_TRUE(wait_for(tree, "out/done"));
    ASSERT_EQ(::unlink((tree.path() + "/out/done").c_str()), 0);
    std::string wanted;
    for (int i = 0; i < boot; ++i) wanted += "ids;33;0;1\n";
    EXPECT_EQ(tree.read("out/ids"), wanted);
    if (boot == 2) break;
    ASSERT_TRUE(domain.ask(ResetRequest{}));
  }
}

}  // namespace
}  // namespace virtuserns::test
