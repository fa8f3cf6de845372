#include "driver/controller/network.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <variant>

#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/controller/boot.h"
#include "driver/controller/enter.h"
#include "driver/controller/protocol.h"
#include "driver/controller/refusals.h"
#include "driver/controller/stem.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/pidfd.h"
#include "driver/links/request.h"

namespace virtuserns::controller {

namespace {

constexpr int kAnswerTimeoutMs = 60'000;  // two programs, each with its own
constexpr std::size_t kMaxLogBytes = 1024 * 1024;
constexpr std::int64_t kRestartMs = 1'000;
constexpr std::size_t kMostRestarts = 10;  // in this time; then a person has to look
constexpr std::int64_t kRestartWindowMs = 600'000;

struct AttachAsk {
  std::uint32_t link = 0;
};  // with the container's user and network namespaces
struct DetachAsk {};
struct BorrowAsk {
  std::uint32_t link = 0;
};  // with the container's network namespace
using KeeperAsk = std::variant<AttachAsk, DetachAsk, BorrowAsk>;
struct Carried {
  std::string host_name;  // of a BorrowAsk
};
using KeeperAnswer = std::variant<Carried, WireError>;

template <class Step>
std::vector<const Step*> links_of(const LaunchPlan& plan) {
  std::vector<const Step*> links;
  for (const auto& step : plan.from_parent)
    if (const auto* link = std::get_if<Step>(&step)) links.push_back(link);
  return links;
}

class Link {
 public:
  Link(const LaunchPlan& plan, const UserLinkStep& step, HostFile log)
      : plan_(plan), step_(step), log_(std::move(log)), what_("interface " + quote(step.guest_name)) {}

  Result<void> attach(const DirFd& proc, NamespacePair container) {
    detach();
    if (!log_.name.empty()) file_ = TRY(log_.open_log(true), what_ + ": log");
    container_ = std::move(container);
    between_ = TRY(make_between(plan_, proc), what_);
    auto run = start_missing();
    if (!run) detach();
    return run;
  }

  void detach() {
    for (auto& end : ends_) end.reset();
    container_ = {};
    between_ = {};
    restarts_.clear();
    retry_at_ms_ = -1;
    file_.reset();
    logged_ = 0;
  }

  void add_to(std::vector<pollfd>& entries) const {
    for (const auto& end : ends_) {
      if (!end) continue;
      entries.push_back({end->process().get(), POLLIN, 0});
      entries.push_back({end->said().get(), POLLIN, 0});
    }
  }
  [[nodiscard]] std::int64_t retry_at_ms() const { return retry_at_ms_; }

  void look() {
    for (auto& end : ends_) {
      if (!end) continue;
      copy_to_log(*end);
      if (!kernel::has_ended(end->process())) continue;
      write_log_line(what_ + ": pasta " + end->why_ended() + ": its connections are lost");
      end.reset();
      plan_restart();
    }
    if (retry_at_ms_ < 0 || monotonic_ms() < retry_at_ms_) return;
    retry_at_ms_ = -1;
    if (auto run = start_missing(); run)
      write_log_line(what_ + ": pasta runs again");
    else {
      write_log_line(run.error().text);
      plan_restart();
    }
  }

 private:
  enum { kUp, kGuest };

  // From the host's side inwards: the second takes its addresses from what the first has made.
  Result<void> start_missing() {
    if (!ends_[kUp]) ends_[kUp].emplace(TRY(Pasta::start(plan_, uplink_words(step_), between_, nullptr), what_));
    if (!ends_[kGuest])
      ends_[kGuest].emplace(TRY(Pasta::start(plan_, guest_words(step_), container_, &between_.net), what_));
    return {};
  }

  void plan_restart() {
    const auto now = monotonic_ms();
    while (!restarts_.empty() && now - restarts_.front() > kRestartWindowMs) restarts_.pop_front();
    if (restarts_.size() >= kMostRestarts) {
      retry_at_ms_ = -1;
      return write_log_line(what_ + ": pasta has died " + std::to_string(kMostRestarts + 1) +
                            " times: it stays away until the domain boots again");
    }
    restarts_.push_back(now);
    retry_at_ms_ = now + kRestartMs;
  }

  void copy_to_log(Pasta& end) {
    char text[4096];
    ssize_t size = 0;
    // Not for as long as it goes on: somebody may be waiting to ask.
    for (int i = 0; i < 16 && (size = ::read(end.said().get(), text, sizeof text)) > 0; ++i) {
      const auto room = std::min(static_cast<std::size_t>(size), kMaxLogBytes - logged_);
      if (!file_ || room == 0) continue;
      (void)!::write(file_.get(), text, room);
      logged_ += room;
    }
    if (size == 0) end.close_said();  // else it would be readable for ever
  }

  const LaunchPlan& plan_;
  const UserLinkStep& step_;
  HostFile log_;
  std::string what_;
  NamespacePair container_, between_;
  std::array<std::optional<Pasta>, 2> ends_;
  std::deque<std::int64_t> restarts_;
  std::int64_t retry_at_ms_ = -1;
  Fd file_;
  std::size_t logged_ = 0;
};

class Keeper {
 public:
  Keeper(const LaunchPlan& plan, std::vector<HostFile> logs, SocketFd socket)
      : socket_(std::move(socket)), proc_(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    lent_ = links_of<LentLinkStep>(plan);
    const auto steps = links_of<UserLinkStep>(plan);
    for (std::size_t i = 0; i < steps.size(); ++i) links_.emplace_back(plan, *steps[i], std::move(logs[i]));
  }

  // Until nobody is left to ask.
  void run() {
    for (;;) {
      std::vector<pollfd> entries = {{socket_.get(), POLLIN, 0}};
      for (const auto& link : links_) link.add_to(entries);
      if (::poll(entries.data(), entries.size(), timeout_ms()) < 0 && errno != EINTR) return;
      if (entries.front().revents != 0 && !answer_one()) return;
      for (auto& link : links_) link.look();
    }
  }

 private:
  int timeout_ms() const {
    std::int64_t next = -1;
    for (const auto& link : links_)
      if (link.retry_at_ms() >= 0 && (next < 0 || link.retry_at_ms() < next)) next = link.retry_at_ms();
    return next < 0 ? -1 : static_cast<int>(std::max<std::int64_t>(0, next - monotonic_ms()));
  }

  bool answer_one() {
    auto packet = recv_packet(socket_.get());
    if (!packet || packet->bytes.empty()) return false;
    const auto request = xdr::decode_exact<KeeperAsk>(packet->bytes, 4096);
    if (!request) return false;
    auto done = std::visit([&](const auto& asked) { return handle(asked, std::move(packet->files)); }, *request);
    const KeeperAnswer said = done ? KeeperAnswer(std::move(*done)) : KeeperAnswer(to_wire(done.error()));
    return static_cast<bool>(send_packet(socket_.get(), xdr::encode(said)));
  }

  static Error no_link() { return fail(VIR_ERR_INTERNAL_ERROR, "the domain has no such link"); }

  Result<Carried> handle(const AttachAsk& request, std::vector<Fd> files) {
    if (request.link >= links_.size() || files.size() != 2) return no_link();
    TRY(links_[request.link].attach(proc_, {NsFd(files[0].release()), NsFd(files[1].release())}));
    return Carried{};
  }

  Result<Carried> handle(const DetachAsk&, std::vector<Fd>) {
    for (auto& link : links_) link.detach();
    return Carried{};
  }

  // From here, because here are the host's file system, in which the broker's socket is, and the user's own id, by which it knows him.
  Result<Carried> handle(const BorrowAsk& request, std::vector<Fd> files) {
    if (request.link >= lent_.size() || files.size() != 1) return no_link();
    const auto& step = *lent_[request.link];
    links::LinkRequest wanted;
    wanted.bridge = step.bridge;
    wanted.guest_name = step.guest_name;
    wanted.guest_mac = step.guest_mac;
    wanted.mtu = step.mtu;
    wanted.is_up = step.is_up;
    return Carried{TRY(links::ask_for_link(step.broker, wanted, NsFd(files[0].release())))};
  }

  SocketFd socket_;
  DirFd proc_;
  std::deque<Link> links_;
  std::vector<const LentLinkStep*> lent_;
};

Result<Carried> ask(const SocketFd& keeper, const KeeperAsk& request, std::span<const int> files = {}) {
  const auto gone = [] {
    return fail(VIR_ERR_OPERATION_FAILED, "the network keeper of the domain is gone: start the domain anew");
  };
  if (!send_packet(keeper.get(), xdr::encode(request), files)) return gone();
  pollfd entry{keeper.get(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, kAnswerTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (ready == 0) return fail(VIR_ERR_OPERATION_TIMEOUT, "the network keeper of the domain does not answer");
  auto packet = recv_packet(keeper.get());
  if (!packet || packet->bytes.empty()) return gone();
  auto answer = TRY(xdr::decode_exact<KeeperAnswer>(packet->bytes, 64 * 1024));
  if (auto* error = std::get_if<WireError>(&answer)) return from_wire(std::move(*error));
  return std::get<Carried>(std::move(answer));
}

[[noreturn]] void run_keeper(const LaunchPlan& plan, std::vector<HostFile> logs, SocketFd socket, pid_t controller) {
  change_name(kKeeperName);
  std::vector<int> kept = {0, 1, 2, socket.get()};
  for (const auto& log : logs)
    if (log.dir) kept.push_back(log.dir.get());
  // Forked before the controller has given up what it opens sources with.
  if (kernel::limit_privileges(privileges_of_stem()) && close_all_but(std::move(kept))) {
    Keeper keeper(plan, std::move(logs), std::move(socket));
    ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (::getppid() == controller) keeper.run();
  }
  ::_exit(0);
}

}  // namespace

Result<SocketFd> start_keeper(const LaunchPlan& plan, std::vector<HostFile> logs) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make socket pair");
  SocketFd ours(pair[0]), theirs(pair[1]);
  const pid_t controller = ::getpid();
  ::prctl(PR_SET_NAME, kKeeperName, 0, 0, 0);  // born with it: see Stem::grow
  auto forked = kernel::clone_process({0, nullptr, SIGCHLD});
  if (forked && forked->pid == 0) {
    ours.reset();
    run_keeper(plan, std::move(logs), std::move(theirs), controller);
  }
  ::prctl(PR_SET_NAME, kControllerName, 0, 0, 0);
  (void)TRY(std::move(forked), "clone network keeper");
  return ours;
}

Result<void> attach_link(const SocketFd& keeper, std::uint32_t link, const NamespacePair& container) {
  const int files[] = {container.user.get(), container.net.get()};
  (void)TRY(ask(keeper, AttachAsk{link}, files));
  return {};
}

Result<void> detach_links(const SocketFd& keeper) {
  (void)TRY(ask(keeper, DetachAsk{}));
  return {};
}

Result<std::string> borrow_link(const SocketFd& keeper, std::uint32_t link, const NsFd& net) {
  const int file = net.get();
  return TRY(ask(keeper, BorrowAsk{link}, std::span(&file, 1))).host_name;
}

}  // namespace virtuserns::controller
