#include "driver/rpc/server.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/rpc/access.h"
#include "driver/rpc/auth.h"
#include "driver/rpc/events.h"

namespace virtuserns::rpc {
namespace {

constexpr std::size_t kInputBudgetBytes = 40 * 1024 * 1024;  // one message of the largest size, and a bit
constexpr int kAcceptsPerRound = 64;
constexpr std::uint64_t kSweepMs = 1000;

ClientLimits limits_of(const DaemonConfig& config) {
  ClientLimits limits;
  limits.requests = std::max(1U, config.max_client_requests);
  limits.keepalive_interval_s = config.keepalive_interval;
  limits.keepalive_count = config.keepalive_count;
  return limits;
}

Workers::Sizes sizes_of(const DaemonConfig& config) {
  return {config.min_workers, std::max(config.max_workers, config.min_workers), std::max(1U, config.prio_workers),
          std::max(1U, config.max_anonymous_clients)};
}

Result<sockaddr_un> socket_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "socket path " + quote(path) + " is too long");
  path.copy(address.sun_path, path.size());
  return address;
}

Result<SocketFd> unix_socket() {
  SocketFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return sys_fail("create socket");
  return socket;
}

// A socket file outlives its daemon: one that refuses is stale and goes, one that answers has an owner.
Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) return fail(VIR_ERR_CONFIG_UNSUPPORTED, quote(path) + " exists and is not a socket");
  const SocketFd probe = TRY(unix_socket());
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN)
    return fail(VIR_ERR_RESOURCE_BUSY, "another daemon listens on " + quote(path));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return sys_fail("remove " + quote(path));
  return {};
}

}  // namespace

Server::Server(Loop& loop, const DaemonConfig& config, SessionHost sessions, EventHub& events)
    : loop_(loop),
      config_(config),
      sessions_(std::move(sessions)),
      events_(events),
      workers_(sizes_of(config), sessions_.prepare_worker),
      host_(new ClientHost{loop_, workers_, InputBudget(kInputBudgetBytes), limits_of(config),
                           [this](Client& client) { client_closed(client); },
                           [this](const Session& session) { session_over(session); }}) {}

Server::~Server() {
  stop();
  host_->closed = nullptr;
  host_->destroyed = nullptr;
}

Result<void> Server::start() {
  TRY(workers_.start());
  spare_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  subscription_ = events_.subscribe([this](const Event& event) { deliver(event); });
  return {};
}

Result<void> Server::listen(const std::string& path, unsigned mode, const std::string& group, bool read_only) {
  const sockaddr_un address = TRY(socket_address(path));
  TRY(remove_stale(path, address));
  SocketFd socket = TRY(unix_socket());
  // Nobody but us until mode and group are right.
  const mode_t old_mask = ::umask(0177);
  const int bound = ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int bind_errno = errno;
  ::umask(old_mask);
  if (bound != 0) return sys_fail("bind " + quote(path), bind_errno);
  if (!group.empty()) {
    const gid_t gid = TRY(group_id(group));
    if (::lchown(path.c_str(), static_cast<uid_t>(-1), gid) != 0)
      return sys_fail("change the group of " + quote(path));
  }
  if (::chmod(path.c_str(), mode) != 0) return sys_fail("change the mode of " + quote(path));
  if (::listen(socket.get(), static_cast<int>(config_.max_queued_clients)) != 0)
    return sys_fail("listen on " + quote(path));
  return adopt(std::move(socket), read_only);
}

Result<void> Server::adopt(SocketFd socket, bool read_only) {
  ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) | O_NONBLOCK);
  listeners_.push_back(std::make_unique<Listener>(Listener{std::move(socket), read_only}));
  const Listener& listener = *listeners_.back();
  return loop_.add(listener.socket.get(), EPOLLIN, [this, &listener](std::uint32_t) { accept_some(listener); });
}

void Server::accept_some(const Listener& listener) {
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    SocketFd socket(::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && (errno == EMFILE || errno == ENFILE)) {
      // Take the client off the queue with the spare descriptor, or the loop would spin on it.
      log_warning("rpc.server", "no descriptor left for a new client");
      if (!evict([](const Client& client) { return !client.is_open(); })) {
        spare_.reset();
        socket = SocketFd(::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
        socket.reset();
        spare_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      }
      continue;
    }
    if (!socket) return;
    admit_client(std::move(socket), listener.read_only);
  }
}

void Server::admit_client(SocketFd socket, bool read_only) {
  const std::string& auth = read_only ? config_.auth_unix_ro : config_.auth_unix_rw;
  const AuthMethod method = auth == "polkit" ? AuthMethod::kPolkit : AuthMethod::kNone;
  auto peer = read_peer(socket, method);
  if (!peer) return;
  const uid_t uid = peer->uid;
  if (!make_place(*peer, method == AuthMethod::kPolkit && uid != 0)) {
    log_warning("rpc.server", "too many clients: one of uid " + std::to_string(uid) + " is refused");
    return;
  }
  auto session = std::make_unique<Session>(sessions_, std::move(*peer), next_id_++, read_only, method);
  const auto client = std::make_shared<Client>(host_, std::move(session), std::move(socket));
  if (!client->start()) return;
  {
    const std::lock_guard lock(clients_mutex_);
    clients_.push_back(client);
  }
  most_clients_ = std::max(most_clients_, clients_.size());
  if (sweep_timer_ == 0) sweep_timer_ = loop_.add_timer(kSweepMs, [this] { sweep(); });
}

bool Server::make_place(const Peer& peer, bool is_anonymous) {
  const uid_t uid = peer.uid;
  const std::size_t reserved = uid == 0 ? 0 : config_.max_clients / 10;
  std::size_t of_uid = 0, anonymous = 0;
  for (const auto& client : clients_) {
    if (client->session().peer().uid == uid) ++of_uid;
    if (!client->session().is_authenticated()) ++anonymous;
  }
  if (uid != 0 && of_uid >= config_.max_clients_per_uid &&
      !evict([uid](const Client& client) { return !client.is_open() && client.session().peer().uid == uid; }))
    return false;
  if (is_anonymous && anonymous >= config_.max_anonymous_clients &&
      !evict([](const Client& client) { return !client.session().is_authenticated(); }))
    return false;
  if (clients_.size() + reserved < config_.max_clients) return true;
  return evict([](const Client& client) { return !client.is_open(); });
}

bool Server::evict(const std::function<bool(const Client&)>& candidate) {
  std::map<uid_t, std::vector<Client*>> by_uid;  // in the order of arrival
  for (const auto& client : clients_)
    if (candidate(*client)) by_uid[client->session().peer().uid].push_back(client.get());
  const auto most = std::max_element(by_uid.begin(), by_uid.end(),
                                     [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  if (most == by_uid.end()) return false;
  most->second.front()->close("makes place for another client");
  return true;
}

void Server::client_closed(Client& client) {
  {
    const std::lock_guard lock(clients_mutex_);
    const auto found =
        std::find_if(clients_.begin(), clients_.end(), [&](const auto& c) { return c.get() == &client; });
    if (found == clients_.end()) return;
    // The last reference may go with it, and what that sets off takes other locks: not under this one.
    loop_.post([keep = *found] {});
    clients_.erase(found);
  }
  if (clients_.empty() && idle_) idle_();
}

void Server::session_over(const Session& session) {
  Driver* driver = session.driver();
  if (driver == nullptr) return;
  workers_.submit(Lane::kLow, session.peer().uid, [driver, id = session.id()] { driver->connection_closed(id); });
}

void Server::deliver(const Event& event) {
  std::vector<std::shared_ptr<Client>> clients;
  {
    const std::lock_guard lock(clients_mutex_);
    for (const auto& client : clients_)
      if (client->session().registration_count() != 0) clients.push_back(client);
  }
  const std::int32_t id = event_id_of(event.body);
  std::erase_if(clients, [&](const auto& client) { return !may_see(client->session().caller(), event.owner); });
  for (const auto& client : clients)
    for (const Registration& registration : client->session().registrations_for(id, event.domain.uuid))
      if (auto frame = make_event_frame(event, registration)) client->send_event(std::move(*frame));
}

void Server::sweep() {
  sweep_timer_ = 0;
  const auto clients = clients_;
  for (const auto& client : clients) client->sweep(Loop::now_ms());
  give_memory_back();
  if (!clients_.empty()) sweep_timer_ = loop_.add_timer(kSweepMs, [this] { sweep(); });
}

// What a crowd of clients took, or large requests of a few, stays with the C library, which expects it to be wanted again:
// hundreds of megabytes, for as long as the daemon lives. Returned when a crowd has left, and a second after the last one.
void Server::give_memory_back() {
  constexpr std::size_t kCrowd = 256;
  if (!clients_.empty() && (most_clients_ < kCrowd || clients_.size() > most_clients_ / 2)) return;
  most_clients_ = clients_.size();
  ::malloc_trim(0);
}

void Server::reload(const DaemonConfig& config) {
  config_ = config;
  const ClientLimits limits = limits_of(config);  // workers read the other fields, which no configuration changes
  host_->limits.requests = limits.requests;
  host_->limits.keepalive_interval_s = limits.keepalive_interval_s;
  host_->limits.keepalive_count = limits.keepalive_count;
  workers_.resize(sizes_of(config));
}

void Server::stop() {
  if (subscription_ != 0) events_.unsubscribe(std::exchange(subscription_, 0));
  for (const auto& listener : listeners_) loop_.remove(listener->socket.get());
  listeners_.clear();
  if (sweep_timer_ != 0) loop_.cancel_timer(std::exchange(sweep_timer_, 0));
  const auto clients = clients_;
  for (const auto& client : clients) client->close("the daemon stops");
  workers_.stop();
}

}  // namespace virtuserns::rpc
