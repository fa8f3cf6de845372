#include "driver/links/broker.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "conf/base/log.h"
#include "conf/base/packet.h"
#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/kernel/caps.h"
#include "driver/links/grants.h"
#include "driver/links/make.h"
#include "driver/links/request.h"

namespace virtuserns::links {

namespace {

constexpr const char* kSource = "links";
constexpr std::size_t kMostCallers = 256, kMostCallersOfOne = 16;
constexpr std::uint64_t kRequestTimeoutMs = 5'000, kAcceptAgainMs = 1'000;
// The links of a domain that has just ended go away a moment later; a domain that boots again would count its own last ones.
constexpr std::uint64_t kRetryMs = 300, kPatienceMs = 3'000;
constexpr std::chrono::seconds kEndTimeout{3};

Result<SocketFd> listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "socket path " + quote(path) + " is too long");
  path.copy(address.sun_path, path.size());
  SocketFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return sys_fail("create socket");
  struct stat st {};
  // The daemon's lock has made sure that nobody listens there any more.
  if (::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) ::unlink(path.c_str());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return sys_fail("bind " + quote(path));
  if (::chmod(path.c_str(), 0666) != 0) return sys_fail("change the mode of " + quote(path));
  if (::listen(socket.get(), static_cast<int>(kMostCallers)) != 0) return sys_fail("listen on " + quote(path));
  return socket;
}

LinkAnswer refusal(const Error& error) {
  auto text = error.text.substr(0, 2000);
  return LinkRefused{error.code, error.sys_errno, std::move(text)};
}

}  // namespace

// Of the broker's thread alone, but for the constructor.
class LinkBroker::Service {
 public:
  Service(Loop& loop, BrokerPlaces places, SocketFd listener, std::vector<UserLinkGrant> grants)
      : loop_(loop), places_(std::move(places)), listener_(std::move(listener)), grants_(std::move(grants)) {}

  Result<void> begin() {
    return loop_.add(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_one(); });
  }
  void set_grants(std::vector<UserLinkGrant> grants) { grants_ = std::move(grants); }

 private:
  struct Caller {
    SocketFd socket;
    uid_t uid = 0;
    Loop::TimerId timer = 0;
    LinkRequest request;
    NsFd net;  // empty: nothing was asked yet
    std::uint64_t patient_until_ms = 0;
  };

  void accept_one() {
    SocketFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
      loop_.remove(listener_.get());  // it would be reported for ever
      loop_.add_timer(kAcceptAgainMs, [this] { (void)begin(); });
    }
    if (!socket) return;
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return;
    const auto of_one = std::count_if(callers_.begin(), callers_.end(),
                                      [&](const auto& entry) { return entry.second.uid == peer.uid; });
    // Not answered: the request that is on its way would make the kernel throw the answer away.
    if (callers_.size() >= kMostCallers || static_cast<std::size_t>(of_one) >= kMostCallersOfOne) return;
    const int fd = socket.get();
    auto& caller = callers_[fd];
    caller.socket = std::move(socket);
    caller.uid = peer.uid;
    caller.timer = loop_.add_timer(kRequestTimeoutMs, [this, fd] {
      callers_.at(fd).timer = 0;
      drop(fd);
    });
    if (!loop_.add(fd, EPOLLIN, [this, fd](std::uint32_t) { on_readable(fd); })) drop(fd);
  }

  void on_readable(int fd) {
    auto& caller = callers_.at(fd);
    auto packet = recv_packet(fd);
    if (!packet && packet.error().sys_errno == EAGAIN) return;
    // One request is all that there is: whatever follows it is the caller's end.
    if (caller.net || (packet && packet->bytes.empty())) return drop(fd);
    if (!packet) return answer(fd, refusal(packet.error()));
    auto request = decode_request(packet->bytes);
    if (request && packet->files.size() != 1)
      request = fail(VIR_ERR_RPC, "request for a link: needs one descriptor, of a network namespace");
    if (!request) return answer(fd, refusal(request.error()));
    caller.request = std::move(*request);
    caller.net = NsFd(packet->files.front().release());
    caller.patient_until_ms = Loop::now_ms() + kPatienceMs;
    decide(fd);
  }

  void decide(int fd) {
    auto& caller = callers_.at(fd);
    auto made = carry_out(caller);
    if (!made && made.error().code == VIR_ERR_RESOURCE_BUSY && Loop::now_ms() < caller.patient_until_ms) {
      loop_.cancel_timer(caller.timer);
      caller.timer = loop_.add_timer(kRetryMs, [this, fd] {
        callers_.at(fd).timer = 0;
        decide(fd);
      });
      return;
    }
    const auto who = "uid " + std::to_string(caller.uid) + ": ";
    if (!made) {
      log_info(kSource, who + made.error().text);
      return answer(fd, refusal(made.error()));
    }
    log_info(kSource, who + quote(*made) + " on bridge " + quote(caller.request.bridge));
    answer(fd, LinkMade{std::move(*made)});
  }

  Result<std::string> carry_out(const Caller& caller) {
    const auto user = look_up_user(caller.uid, grants_);
    const auto grant = TRY(find_grant(grants_, user, caller.request.bridge, places_.config_file));
    TRY(check_namespace(caller.net, caller.uid, places_.proc));
    return make_link(caller.request, user, grant, caller.net);
  }

  static void say(const SocketFd& socket, const LinkAnswer& said) {
    (void)send_packet(socket.get(), xdr::encode(said));
  }
  void answer(int fd, const LinkAnswer& said) {
    say(callers_.at(fd).socket, said);
    drop(fd);
  }
  void drop(int fd) {
    const auto found = callers_.find(fd);
    if (found == callers_.end()) return;
    if (found->second.timer != 0) loop_.cancel_timer(found->second.timer);
    loop_.remove(fd);
    callers_.erase(found);
  }

  Loop& loop_;
  const BrokerPlaces places_;
  const SocketFd listener_;
  std::vector<UserLinkGrant> grants_;
  std::map<int, Caller> callers_;  // by socket
};

Result<std::unique_ptr<LinkBroker>> LinkBroker::start(const BrokerPlaces& places, std::vector<UserLinkGrant> grants) {
  std::unique_ptr<LinkBroker> broker(new LinkBroker);
  broker->loop_ = TRY(Loop::create());
  broker->service_ =
      std::make_unique<Service>(*broker->loop_, places, TRY(listen_at(places.socket)), std::move(grants));
  TRY(broker->service_->begin());
  std::promise<void> ended;
  broker->ended_ = ended.get_future();
  broker->thread_ = std::thread([loop = broker->loop_.get(), ended = std::move(ended)]() mutable {
    if (auto limited = kernel::hold_capabilities(capability_bit(CAP_NET_ADMIN)); limited)
      loop->run();
    else
      log_error(kSource, "no links are made: " + limited.error().text);
    ended.set_value();
  });
  return broker;
}

LinkBroker::~LinkBroker() {
  if (!thread_.joinable()) return;
  loop_->quit();
  if (ended_.wait_for(kEndTimeout) == std::future_status::ready) {
    thread_.join();
    return;
  }
  // It closes a descriptor of somebody's who has made that take long. The process ends, and with it the thread.
  thread_.detach();
  (void)service_.release();
  (void)loop_.release();
}

void LinkBroker::set_grants(std::vector<UserLinkGrant> grants) {
  loop_->post(
      [service = service_.get(), grants = std::move(grants)]() mutable { service->set_grants(std::move(grants)); });
}

}  // namespace virtuserns::links
