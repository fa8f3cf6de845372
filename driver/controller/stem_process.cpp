// The stem itself: everything that it does for the controller, which it does not trust.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/enter.h"
#include "driver/controller/network.h"
#include "driver/controller/plugs.h"
#include "driver/controller/stem.h"
#include "driver/controller/tree.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/link.h"
#include "driver/kernel/pidfd.h"
#include "driver/kernel/process.h"

namespace virtuserns::controller {

namespace {

constexpr std::size_t kMaxAskMemory = 4 * 1024 * 1024;
constexpr int kKillTimeoutMs = 10'000;

// What limits a running domain. Other files of a group move processes into it, open devices, or end what is in it.
constexpr std::string_view kLimitFiles[] = {"pids.max",
                                            "memory.max",
                                            "memory.high",
                                            "memory.swap.max",
                                            "memory.limit_in_bytes",
                                            "memory.soft_limit_in_bytes",
                                            "memory.memsw.limit_in_bytes",
                                            "cpu.max",
                                            "cpu.weight",
                                            "cpu.shares",
                                            "cpu.cfs_period_us",
                                            "cpu.cfs_quota_us",
                                            "cpuset.cpus",
                                            "cpuset.mems",
                                            "io.max",
                                            "io.weight",
                                            "blkio.weight",
                                            "blkio.bfq.weight",
                                            "blkio.throttle.read_iops_device",
                                            "blkio.throttle.write_iops_device",
                                            "blkio.throttle.read_bps_device",
                                            "blkio.throttle.write_bps_device"};

// Never torn, not durable: /run does not outlive the machine.
void write_record(const HostFile& file, const ExitRecord& record) {
  if (!file.dir) return;
  const auto bytes = xdr::encode(record);
  const std::string temp = file.name + ".new";
  ::unlinkat(file.dir.get(), temp.c_str(), 0);
  const Fd out(::openat(file.dir.get(), temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!out || ::write(out.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) return;
  ::renameat(file.dir.get(), temp.c_str(), file.dir.get(), file.name.c_str());
}

// To make files as the container's root changes ids, and that takes both back (prctl(2)): again after every boot.
void guard_stem(pid_t controller) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (::getppid() != controller) ::_exit(1);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

class StemProcess {
 public:
  StemProcess(LaunchPlan& plan, Host& host, const std::vector<Fd>& passed_files, const StemSockets& sockets,
              pid_t controller)
      : plan_(plan),
        host_(host),
        passed_files_(passed_files),
        socket_(sockets.controller),
        plugs_socket_(sockets.plugs),
        controller_(controller),
        plugs_(plan, host) {}

  // Of the controller's copy, which nobody in here uses any more.
  void take(const Boot& boot) {
    init_ = PidFd(boot.init.get());
    devpts_ = Fd(boot.devpts.get());
    init_pid_ = boot.record.init_pid;
    plugs_.booted(boot);
  }
  [[nodiscard]] std::vector<int> descriptors() const { return {init_.get(), devpts_.get(), plugs_.descriptor()}; }

  // Until the controller is gone, or says what none of ours would.
  void run() {
    for (;;) {
      // Who asks for devices waits until there is a container for them.
      const int plugs = is_up_ && plugs_socket_ ? plugs_socket_.get() : -1;
      pollfd entries[] = {{socket_.get(), POLLIN, 0}, {plugs, POLLIN, 0}};
      const int timeout_ms = tend_errands(host_) ? 1'000 : -1;
      if (::poll(entries, 2, timeout_ms) <= 0) continue;
      if (entries[1].revents != 0) answer_daemon();
      if (entries[0].revents == 0) continue;
      auto packet = recv_packet(socket_.get());
      if (!packet || packet->bytes.empty()) return;
      auto request = xdr::decode_exact<StemAsk>(packet->bytes, kMaxAskMemory);
      if (!request) return;
      received_ = std::move(packet->files);
      packet->bytes = {};
      auto answered = std::visit([this](const auto& body) { return handle(body); }, *request);
      received_.clear();
      if (!answered) (void)send_packet(socket_.get(), xdr::encode(StemAnswer(to_wire(answered.error()))));
      if (std::holds_alternative<ReleaseAsk>(*request)) return;
      if (std::exchange(is_grown_, false) || std::holds_alternative<EnterAsk>(*request)) kernel::shrink_heap();
    }
  }

 private:
  Result<void> answer(const StemAnswer& body, std::span<const int> files = {}) const {
    return send_packet(socket_.get(), xdr::encode(body), files);
  }

  // Its number is its own as long as it has not ended, which is asked after what was found by the number.
  Result<void> check_init() const {
    if (!init_ || kernel::has_ended(init_)) return fail(VIR_ERR_OPERATION_INVALID, "the domain is between two boots");
    return {};
  }

  Result<void> handle(const TidyAsk&) {
    is_up_ = true;
    Tree::clear();
    kernel::shrink_stack();
    return {};
  }

  Result<void> handle(const BootAsk&) {
    // Ours comes when all of the last one are reaped, and ends the domain after a failure. Else each request would leave
    // processes to a controller that does not reap them, outside of what the groups limit.
    for (const auto* process : {&init_, &starter_})
      if (*process && !kernel::is_reaped(*process))
        return fail(VIR_ERR_OPERATION_INVALID, "the last boot of the domain is not over");
    is_up_ = false;
    if (std::exchange(is_booting_, true))
      return fail(VIR_ERR_OPERATION_INVALID, "the last boot of the domain failed");
    if (const auto* freezer = host_.freezer()) (void)freezer->set_frozen(false);
    // First of all: as long as somebody holds the network of the last boot, its links have their names.
    if (host_.network) TRY(detach_links(host_.network));
    // Whoever entered the groups from outside of the pid namespace did not die with it.
    for (const auto& group : host_.groups) group.clear();
    devpts_.reset();
    auto begun = begin_boot(plan_, host_, passed_files_, Parent::kItsParent);
    guard_stem(controller_);
    auto waiting = TRY(std::move(begun));
    auto& consoles = waiting.boot.consoles;
    const int files[] = {waiting.gate.get(), waiting.boot.init.get(), waiting.starter.get()};
    auto sent = answer(Booted{waiting.boot.record, static_cast<std::uint32_t>(consoles.size())}, files);
    for (std::size_t next = 0; sent && next < consoles.size(); next += kMaxPacketFiles) {
      std::vector<int> masters;
      for (auto i = next; i < std::min(next + kMaxPacketFiles, consoles.size()); ++i)
        masters.push_back(consoles[i].master.get());
      sent = answer(Done{}, masters);
    }
    if (!sent) abandon(waiting);
    TRY(std::move(sent));
    init_ = std::move(waiting.boot.init);
    init_pid_ = waiting.boot.record.init_pid;
    starter_ = std::move(waiting.starter);
    plugs_.booted(waiting.boot);
    devpts_ = std::move(waiting.boot.devpts);
    is_grown_ = true;
    is_booting_ = false;
    return {};
  }

  // One ask of plug.h. Whoever does not say it at once, or does not listen, is not waited for: everybody else would wait too.
  void answer_daemon() {
    const SocketFd daemon(::accept4(plugs_socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ucred peer{};
    socklen_t size = sizeof peer;
    if (!daemon || ::getsockopt(daemon.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != 0) return;
    constexpr timeval kPatience{1, 0};
    ::setsockopt(daemon.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
    ::setsockopt(daemon.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience);
    auto packet = recv_packet(daemon.get());
    if (!packet || packet->bytes.empty()) return;
    const auto ask = xdr::decode_exact<DeviceAsk>(packet->bytes, kMaxAskMemory);
    if (!ask) return;
    const auto answered = std::visit([&](const auto& body) { return handle(body, std::move(packet->files)); }, *ask);
    (void)send_packet(daemon.get(), xdr::encode(answered ? *answered : DeviceAnswer(to_wire(answered.error()))));
    kernel::shrink_heap();
  }
  Result<DeviceAnswer> handle(const PlugAsk& ask, std::vector<Fd> files) {
    TRY(check_init());
    auto plugged = plugs_.plug(ask, std::move(files), init_, init_pid_);
    if (!plugged) return std::move(plugged).error();
    return DeviceAnswer(std::move(*plugged));
  }
  Result<DeviceAnswer> handle(const UnplugAsk& ask, std::vector<Fd>) {
    TRY(check_init());
    auto unplugged = plugs_.unplug(ask, init_, init_pid_);
    if (!unplugged) return std::move(unplugged).error();
    return DeviceAnswer(*unplugged);
  }
  Result<DeviceAnswer> handle(const PasswordAsk& ask, std::vector<Fd>) {
    TRY(check_init());
    return DeviceAnswer(TRY(plugs_.set_password(ask, init_, init_pid_)));
  }
  Result<DeviceAnswer> handle(const PlacesAsk&, std::vector<Fd>) { return DeviceAnswer(plugs_.places()); }

  void end_init() {
    if (!init_) return;
    (void)kernel::send_signal(init_, SIGKILL);
    // v1 lets a frozen process not even die; and the signal is already pending, so that none of them runs again.
    if (const auto* freezer = host_.freezer()) (void)freezer->set_frozen(false);
  }

  Result<void> handle(const KillAsk&) {
    end_init();
    return {};
  }

  Result<void> handle(const FreezeAsk& request) {
    const auto* freezer = host_.freezer();
    if (!freezer) return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the domain is in no group that can be frozen");
    TRY(freezer->set_frozen(request.freeze));
    return answer(Done{});
  }

  // A pid inside is found among the processes of the groups by the kernel's own list of its numbers. Once found it is held
  // by its pidfd and everything read again: as long as that one lives, the number and all that is said of it are its own.
  Result<void> signal_inside(std::int32_t inside_pid, int signal) const {
    TRY(check_init());
    if (signal < 0 || signal > 64) return fail(VIR_ERR_INVALID_ARG, "there is no signal " + std::to_string(signal));
    if (inside_pid == 1) {
      if (signal != 0 && signal != SIGKILL && signal != SIGSTOP &&
          !is_handled(TRY(kernel::read_process_status(host_.proc, init_pid_)), signal))
        return fail(VIR_ERR_OPERATION_FAILED,
                    "init does not handle signal " + std::to_string(signal) + ", the kernel would drop it");
      return kernel::send_signal(init_, signal);
    }
    if (inside_pid < 1) return fail(VIR_ERR_INVALID_ARG, "process " + std::to_string(inside_pid) + " is no process");
    for (const auto& group : host_.groups) {
      for (const auto pid : TRY(group.processes())) {
        const auto is_wanted = [&] {
          const auto status = kernel::read_process_status(host_.proc, pid);
          return status && status->ns_pids.size() > 1 && status->ns_pids[1] == inside_pid;
        };
        if (!is_wanted()) continue;
        const auto process = kernel::open_process(pid);
        const auto now = TRY(group.processes());
        if (!process || std::find(now.begin(), now.end(), pid) == now.end() || !is_wanted()) continue;
        if (kernel::has_ended(*process)) continue;
        return kernel::send_signal(*process, signal);
      }
    }
    return fail(VIR_ERR_OPERATION_FAILED, "the domain has no process " + std::to_string(inside_pid));
  }

  Result<void> handle(const SignalAsk& request) {
    TRY(signal_inside(request.inside_pid, request.signal));
    return answer(Done{});
  }

  // Children of the controller are of this domain, because only we make them. It waits for our answer and reaps nothing; if
  // it is taken over and does, the pidfd is that of the dead.
  Result<void> handle(const SignalChildAsk& request) {
    if (request.pid <= 1) return fail(VIR_ERR_INVALID_ARG, "no child of the controller");
    const auto process = TRY(kernel::open_process(request.pid));
    const auto family = TRY(kernel::read_family(host_.proc, request.pid));
    if (family.parent != controller_ || (request.is_group && family.group != request.pid))
      return fail(VIR_ERR_OPERATION_DENIED, "process " + std::to_string(request.pid) + " is not of this domain");
    TRY(request.is_group ? kernel::send_signal_to_group(process, request.pid, request.signal)
                         : kernel::send_signal(process, request.signal));
    return answer(Done{});
  }

  Result<void> handle(const ShutDownAsk& request) {
    TRY(check_init());
    const auto asked = TRY(ask_to_shut_down({host_.proc, init_, init_pid_}, request.request));
    return answer(ShutDownAsked{asked == Asked::kToEnd});
  }

  Result<void> handle(const NamespacesAsk&) {
    std::vector<NsFd> namespaces;
    std::vector<int> files;
    for (const char* name : {"user", "ipc", "uts", "net", "pid", "mnt"}) {
      namespaces.push_back(TRY(kernel::open_namespace(host_.proc, init_pid_, name)));
      files.push_back(namespaces.back().get());
    }
    TRY(check_init());
    return answer(Done{}, files);
  }

  Result<void> handle(const WriteGroupsAsk& request) {
    for (const auto& write : request.request.writes) {
      const auto* group = host_.find_group(write.controller);
      if (!group)
        return fail(VIR_ERR_OPERATION_INVALID, "the domain is in no group of controller " + quote(write.controller));
      if (std::find(std::begin(kLimitFiles), std::end(kLimitFiles), write.file) == std::end(kLimitFiles))
        return fail(VIR_ERR_INVALID_ARG, quote(write.file) + " is no limit of a running domain");
      TRY(group->write(write.file, write.value));
    }
    return answer(Done{});
  }

  Result<void> handle(const AddressesAsk&) {
    TRY(check_init());
    auto route = TRY(open_route_inside(host_, TRY(kernel::open_namespace(host_.proc, init_pid_, "net"))));
    TRY(check_init());
    AddressesReply result;
    const auto addresses = TRY(kernel::list_addresses(route));
    for (const auto& link : TRY(kernel::list_links(route))) {
      AddressesReply::Link entry{printable(link.name), format_mac_bytes(link.mac), {}};
      for (const auto& address : addresses)
        if (address.link_index == link.index) entry.addresses.push_back({address.bytes, address.prefix});
      result.links.push_back(std::move(entry));
    }
    return answer(result);
  }

  Result<void> handle(const EnterAsk& request) {
    if (received_.empty()) return fail(VIR_ERR_INTERNAL_ERROR, "a command without its channel");
    const int program = received_.size() > 1 ? received_[1].get() : -1;
    if (program >= 0) TRY(validate_program(program));
    TRY(validate_exec(request.command));
    std::erase_if(joiners_, kernel::is_reaped);
    if (joiners_.size() >= kMaxCommands)
      return fail(VIR_ERR_RESOURCE_BUSY, "too many commands of the domain are on their way in");
    const Doors doors = TRY(open_doors(host_, init_pid_, devpts_));
    TRY(check_init());
    auto cloned = TRY(kernel::clone_process({CLONE_PARENT, nullptr}), "clone");
    if (cloned.pid == 0) run_joiner(plan_, {request.command, program, received_.front().get()}, doors);
    const int file = joiners_.emplace_back(std::move(cloned.pidfd)).get();
    return answer(Joined{cloned.pid}, std::span(&file, 1));
  }

  Result<void> handle(const RotateLogAsk& request) {
    if (request.console >= host_.console_logs.size() || host_.console_logs[request.console].name.empty())
      return fail(VIR_ERR_INVALID_ARG, "no such log");
    const Fd log = TRY(host_.console_logs[request.console].rotate());
    const int file = log.get();
    return answer(Done{}, std::span(&file, 1));
  }

  Result<void> handle(const ReleaseAsk& request) {
    if (init_) {
      end_init();
      (void)kernel::has_ended(init_, kKillTimeoutMs);
    }
    Tree::clear();
    auto released = host_.release();
    ExitRecord record = request.record;
    record.error = record.error.substr(0, kMaxErrorText);
    if (!released) record.error += (record.error.empty() ? "clean up: " : "; clean up: ") + released.error().text;
    if (record.boots != 0) write_record(host_.exit_record, record);
    TRY(std::move(released));
    return answer(Done{});
  }

  LaunchPlan& plan_;
  Host& host_;
  const std::vector<Fd>& passed_files_;
  const SocketFd& socket_;
  const SocketFd& plugs_socket_;
  pid_t controller_;
  Plugs plugs_;
  PidFd init_, starter_;
  pid_t init_pid_ = 0;
  std::vector<PidFd> joiners_;
  bool is_booting_ = false;  // or has begun to, and failed
  bool is_up_ = false;       // init has been exec'd, says the controller
  Fd devpts_;
  std::vector<Fd> received_;
  bool is_grown_ = false;  // by a boot, whose memory is not needed while the container runs
};

}  // namespace

void change_name(std::string_view name_of_fork) {
  constexpr std::string_view kOurs = "virtuserns-controller", kMark = "VIRTUSERNS_RUN=";
  char* program = program_invocation_name;
  if (const std::string_view name = program; name.ends_with(kOurs)) {
    char* end = program + name.size() - kOurs.size();
    std::memset(end, 0, kOurs.size());
    std::memcpy(end, name_of_fork.data(), name_of_fork.size());
  }
  for (char** variable = environ; *variable; ++variable)
    if (std::string_view(*variable).starts_with(kMark)) std::memset(*variable, 0, std::strlen(*variable));
}

void run_stem(LaunchPlan& plan, Host& host, const std::vector<Fd>& passed_files, const Boot& boot,
              const StemSockets& sockets) {
  const pid_t controller = ::getppid();
  guard_stem(controller);
  change_name(kStemName);
  StemProcess stem(plan, host, passed_files, sockets, controller);
  stem.take(boot);
  std::vector<int> kept = host.descriptors();
  for (const int fd : {0, 1, 2, sockets.controller.get(), sockets.plugs.get()}) kept.push_back(fd);
  for (const int fd : stem.descriptors()) kept.push_back(fd);
  for (const auto& file : passed_files) kept.push_back(file.get());
  if (close_all_but(std::move(kept))) stem.run();
  ::_exit(0);
}

}  // namespace virtuserns::controller
