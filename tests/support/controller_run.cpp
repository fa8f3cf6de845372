#include "tests/support/controller_run.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tests/support/test_machine.h"

namespace virtuserns::test {

namespace fs = std::filesystem;

namespace {

std::string build_root() {
  const char* root = std::getenv("VIRTUSERNS_BUILD");
  return root ? root : ".";
}

std::int64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

std::string test_group() { return "virtuserns-test-" + std::to_string(::getpid()); }

}  // namespace

int time_factor() {
  const char* factor = std::getenv("VIRTUSERNS_TIME_FACTOR");
  return std::max(1, factor ? std::atoi(factor) : 1);
}

std::string enter_test_machine() {
  if (::geteuid() != 0) return "needs root";
  if (!fs::exists("/bin/busybox")) return "needs /bin/busybox (busybox-static)";
  if (!fs::exists(build_root() + "/driver/controller/virtuserns-controller"))
    return "VIRTUSERNS_BUILD has no controller";
  if (all_cgroups("probe").empty()) return "needs control groups";
  if (!is_in_test_machine()) {
    if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0) return "may not make namespaces";
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "may not make mounts private";
  }
  ::signal(SIGPIPE, SIG_IGN);
  return {};
}

RootTree::RootTree() {
  for (const char* dir : {"bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "run", "root", "out"})
    fs::create_directories(path() + "/" + dir);
  fs::permissions(path() + "/..", fs::perms(0711));
  fs::copy_file("/bin/busybox", path() + "/bin/busybox");
  if (const std::string probe = build_root() + "/tests/root/probe"; fs::exists(probe))
    fs::copy_file(probe, path() + "/bin/probe");
  for (const char* applet :
       {"sh",    "cat",  "ls",   "mount",    "umount",  "sleep",    "kill", "reboot", "poweroff", "init",
        "mknod", "id",   "ip",   "hostname", "stty",    "readlink", "ping", "chmod",  "dd",       "touch",
        "echo",  "grep", "stat", "head",     "tail",    "wc",       "true", "false",  "mkdir",    "ln",
        "tty",   "nc",   "ps",   "cut",      "ttysize", "test",     "rm",   "env"})
    fs::create_symlink("busybox", path() + "/bin/" + applet);
  fs::create_symlink("../bin/busybox", path() + "/sbin/init");
  write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/:/bin/sh\n");
  write("etc/group", "root:x:0:\ntty:x:5:\nweb:x:34:\nextra:x:77:web\n");
}

void RootTree::write(const std::string& name, const std::string& content, mode_t mode) const {
  std::ofstream(path() + "/" + name, std::ios::binary) << content;
  ::chmod((path() + "/" + name).c_str(), mode);
}

std::string RootTree::read(const std::string& name) const {
  std::ifstream in(path() + "/" + name, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<CgroupStep> all_cgroups(const std::string& name) {
  std::vector<CgroupStep> steps;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    const auto words = split_blanks(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 10 || dash == words.end() || words.end() - dash < 4) continue;
    const bool is_v2 = dash[1] == "cgroup2";
    if (!is_v2 && dash[1] != "cgroup") continue;
    CgroupStep step;
    step.mount = std::string(words[4]);
    step.is_v2 = is_v2;
    step.path = test_group() + "/" + name;
    if (is_v2) {
      // Those of the product that can be limited in a test; a hierarchy beside v1's has none.
      std::ifstream available(step.mount + "/cgroup.controllers");
      for (std::string controller; available >> controller;)
        if (controller == "pids" || controller == "memory") step.controllers.push_back(controller);
    } else {
      for (const auto option : split(dash[3], ','))
        if (option != "rw") step.controllers.emplace_back(option);
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

LaunchPlan make_plan_for(const RootTree& tree, const std::string& script) {
  static int counter = 0;
  LaunchPlan plan;
  plan.name = "test" + std::to_string(++counter);
  plan.host_uid = plan.host_gid = kHostId;
  const std::string base = tree.temp() + "/" + plan.name;
  plan.stage_path = base + ".stage";
  fs::create_directory(plan.stage_path);
  plan.socket_path = base + ".sock";
  plan.exit_record_path = base + ".exit";
  plan.consoles = {{0, base + ".log", true}};
  for (auto& step : all_cgroups(plan.name)) {
    for (const auto& controller : step.controllers) {
      if (controller == "pids") step.writes.push_back({"pids.max", "64"});
      if (controller == "memory")
        step.writes.push_back({step.is_v2 ? "memory.max" : "memory.limit_in_bytes", "67108864"});
      if (controller == "devices") step.device_rules = standard_device_rules();
    }
    plan.before.emplace_back(std::move(step));
  }
  plan.before.emplace_back(SourceStep{1, tree.path(), false, false});
  std::uint32_t id = 10;
  std::vector<ParentStep> nodes;
  for (const char* node : {"null", "zero", "full", "random", "urandom", "tty"}) {
    plan.before.emplace_back(DeviceSourceStep{++id, std::string("/dev/") + node, false});
    nodes.emplace_back(DeviceNodeStep{id, std::string("/dev/") + node});
  }
  plan.from_parent = {IdMapStep{{{{0, kHostId, 65536}}, {{0, kHostId, 65536}}}},
                      RootStep{1, OwnerShift::kIdmappedMount, false},
                      ProcStep{{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger",
                                "/proc/nothing", "/proc/acpi"},
                               {"/proc/sys", "/proc/irq", "/proc/bus"},
                               {"/proc/sys/net"}},
                      SysStep{{"/sys/firmware"}},
                      DevStep{65536, 1, 5},
                      MqueueStep{},
                      TmpfsStep{"/dev/shm", 1048576, 01777, false}};
  plan.from_parent.insert(plan.from_parent.end(), nodes.begin(), nodes.end());
  constexpr std::uint64_t kAll = (std::uint64_t{1} << 41) - 1;
  plan.inside = {LinkUpStep{"lo"},
                 HostnameStep{plan.name},
                 PivotStep{},
                 ConsoleStep{},
                 CapabilitiesStep{kAll, false},
                 ExecStep{"/bin/sh", {"/bin/sh", "-c", script}, {"PATH=/bin:/sbin", "container=lxc-libvirt"}, "", 0}};
  return plan;
}

Domain::~Domain() {
  kill_controller();
  if (is_killed_) (void)reap();
}

namespace {
bool needs_scope(const LaunchPlan& plan) {
  return std::any_of(plan.before.begin(), plan.before.end(), [](const BeforeStep& step) {
    const auto* group = std::get_if<CgroupStep>(&step);
    return group && !group->scope.empty();
  });
}
}  // namespace

Result<controller::Note> Domain::start(const std::vector<int>& files) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("socketpair");
  channel_ = SocketFd(pair[0]);
  const SocketFd theirs(pair[1]);
  const Fd memory(::memfd_create("plan", MFD_CLOEXEC));
  const auto bytes = encode_plan(plan_);
  if (::write(memory.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    return sys_fail("write plan");
  // Above the numbers that are given away, so that no dup2 overwrites a source.
  std::vector<Fd> high;
  std::vector<int> wanted = {memory.get(), theirs.get()};
  wanted.insert(wanted.end(), files.begin(), files.end());
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    high.emplace_back(::fcntl(wanted[i], F_DUPFD_CLOEXEC, 200));
    ::posix_spawn_file_actions_adddup2(&actions, high.back().get(), controller::kPlanFd + static_cast<int>(i));
  }
  const std::string program = build_root() + "/driver/controller/virtuserns-controller";
  char* argv[] = {const_cast<char*>(program.c_str()), const_cast<char*>(plan_.name.c_str()), nullptr};
  const int err = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (err != 0) return sys_fail("spawn controller", err);
  if (needs_scope(plan_) && daemon_ == Daemon::kPlaces)
    TRY(controller::send_packet(channel_.get(), xdr::encode(controller::Placed{})));
  if (needs_scope(plan_) && daemon_ == Daemon::kGone)
    if (::shutdown(channel_.get(), SHUT_WR) != 0) return sys_fail("shut down channel");
  return next_note(30'000);
}

Result<controller::BootRecord> Domain::start_ok(const std::vector<int>& files) {
  auto note = TRY(start(files));
  if (auto* failed = std::get_if<controller::FailedNote>(&note))
    return Error{failed->error.code, failed->error.sys_errno, failed->error.text};
  if (auto* started = std::get_if<controller::StartedNote>(&note)) return started->boot;
  return fail(VIR_ERR_INTERNAL_ERROR, "unexpected note");
}

Result<controller::FromController> Domain::receive(int timeout_ms) {
  pollfd entry{channel_.get(), POLLIN, 0};
  if (::poll(&entry, 1, timeout_ms * time_factor()) <= 0)
    return fail(VIR_ERR_OPERATION_TIMEOUT, "the controller says nothing");
  auto packet = TRY(controller::recv_packet(channel_.get()));
  if (packet.bytes.empty()) return fail(VIR_ERR_OPERATION_FAILED, "the controller has closed");
  if (!packet.files.empty()) files_ = std::move(packet.files);
  return xdr::decode_exact<controller::FromController>(packet.bytes);
}

Result<controller::Note> Domain::next_note(int timeout_ms) {
  if (!notes_.empty()) {
    auto note = notes_.front();
    notes_.erase(notes_.begin());
    return note;
  }
  for (;;) {
    auto message = TRY(receive(timeout_ms));
    if (auto* note = std::get_if<controller::Note>(&message)) return std::move(*note);
  }
}

Result<controller::Reply> Domain::exchange(const controller::Request& request, int timeout_ms,
                                           std::span<const int> files) {
  TRY(controller::send_packet(channel_.get(), xdr::encode(request), files));
  for (;;) {
    auto message = TRY(receive(timeout_ms));
    if (auto* note = std::get_if<controller::Note>(&message))
      notes_.push_back(*note);
    else if (auto* reply = std::get_if<controller::Reply>(&message); reply && reply->serial == request.serial)
      return std::move(*reply);
  }
}

Result<Fd> Domain::console(std::uint32_t port, bool force) {
  files_.clear();
  TRY(ask(controller::ConsoleRequest{port, force}));
  if (files_.size() != 1) return fail(VIR_ERR_INTERNAL_ERROR, "no console came");
  return std::move(files_[0]);
}

Result<controller::StatusReply> Domain::status() {
  const auto reply = TRY(request(controller::StatusRequest{}));
  if (const auto* status = std::get_if<controller::StatusReply>(&reply.body)) return *status;
  return fail(VIR_ERR_INTERNAL_ERROR, "no status came");
}

void Domain::reconnect() {
  channel_ = SocketFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  plan_.socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(channel_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) channel_.reset();
  notes_.clear();
}

void Domain::kill_controller() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  (void)::waitpid(pid_, nullptr, 0);
  pid_ = -1;
  is_killed_ = true;  // what it had to clean up is there still
}

bool Domain::wait_controller(int timeout_ms) {
  for (const auto deadline = now_ms() + timeout_ms * time_factor(); now_ms() < deadline; ::usleep(1000)) {
    const pid_t waited = ::waitpid(pid_, nullptr, WNOHANG);
    if (waited == 0) continue;
    pid_ = -1;
    return true;
  }
  return false;
}

int Domain::reap() const {
  const Fd memory(::memfd_create("plan", 0));
  const auto bytes = encode_plan(plan_);
  if (::write(memory.get(), bytes.data(), bytes.size()) < 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(memory.get(), controller::kPlanFd);
    const std::string program = build_root() + "/driver/controller/virtuserns-controller";
    ::execl(program.c_str(), program.c_str(), "--reap", nullptr);
    ::_exit(127);
  }
  int status = -1;
  (void)::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

pid_t stem_of(pid_t controller) {
  const std::string proc = "/proc/";
  for (int i = 0; i < 5000 * time_factor(); ++i, ::usleep(1000)) {
    std::ifstream children(proc + std::to_string(controller) + "/task/" + std::to_string(controller) + "/children");
    for (pid_t child = 0; children >> child;) {
      std::ifstream comm(proc + std::to_string(child) + "/comm");
      if (std::string name; std::getline(comm, name) && name == "virtuserns-stem") return child;
    }
  }
  return 0;
}

std::string read_until(const Fd& fd, const std::string& text, int timeout_ms) {
  std::string seen;
  const auto deadline = now_ms() + timeout_ms * time_factor();
  while (seen.find(text) == std::string::npos) {
    pollfd entry{fd.get(), POLLIN, 0};
    const auto left = deadline - now_ms();
    if (left <= 0 || ::poll(&entry, 1, static_cast<int>(left)) <= 0) break;
    char buffer[4096];
    const auto got = ::read(fd.get(), buffer, sizeof buffer);
    if (got <= 0) break;
    seen.append(buffer, static_cast<std::size_t>(got));
  }
  return seen;
}

std::string snapshot() {
  std::string text = "mounts:\n";
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) text += line + "\n";
  text += "groups:\n";
  for (const auto& step : all_cgroups("")) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(step.mount + "/" + test_group(), error))
      if (entry.is_directory()) text += entry.path().string() + "\n";
  }
  text += "links:\n";
  for (const auto& name : fs::directory_iterator("/sys/class/net")) text += name.path().filename().string() + "\n";
  text += "processes:\n";
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto pid = parse_number<pid_t>(entry.path().filename().string());
    std::ifstream status(entry.path() / "status");
    bool is_zombie = false;  // of a killed controller: pid 1 has yet to reap it, nothing runs any more
    for (std::string line; pid && std::getline(status, line);) {
      if (line.starts_with("State:\tZ")) is_zombie = true;
      if (!is_zombie && line.starts_with("Uid:") &&
          line.find(std::to_string(kHostId).substr(0, 4)) != std::string::npos)
        text += entry.path().string() + "\n";
    }
  }
  return text;
}

bool wait_for(const RootTree& tree, const std::string& name) {
  for (int i = 0; i < 10'000 * time_factor(); ++i) {
    if (fs::exists(fs::symlink_status(tree.path() + "/" + name))) return true;
    ::usleep(1000);
  }
  return false;
}

}  // namespace virtuserns::test
