#include "driver/userns/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::userns {

Result<void> Reactor::start() {
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !wake_) return sys_fail("epoll");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
  thread_ = std::thread([this] { run(); });
  return {};
}

void Reactor::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  thread_.join();
}

std::uint64_t Reactor::add(const Fd& fd, Handler handler) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t id = next_id_++;
  watched_[id] = {fd.get(), std::make_shared<Handler>(std::move(handler))};
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event);
  return id;
}

void Reactor::remove(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = watched_.find(id);
  if (found == watched_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd, nullptr);
  watched_.erase(found);
}

void Reactor::run() {
  epoll_event events[64];
  while (!stopping_) {
    const int count = ::epoll_wait(epoll_.get(), events, 64, -1);
    for (int i = 0; i < count && !stopping_; ++i) {
      std::shared_ptr<Handler> handler;
      {
        const std::lock_guard lock(mutex_);
        if (const auto found = watched_.find(events[i].data.u64); found != watched_.end())
          handler = found->second.handler;
      }
      if (handler) (*handler)();
    }
  }
}

Channel::Channel(SocketFd socket) : socket_(std::make_shared<const SocketFd>(std::move(socket))) {
  ::fcntl(socket_->get(), F_SETFL, ::fcntl(socket_->get(), F_GETFL) | O_NONBLOCK);
}

Result<SocketFd> Channel::connect(const std::string& path) {
  SocketFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return sys_fail("socket");
  // Through the directory's descriptor: 108 bytes are too few for a path (unix(7)).
  const auto slash = path.rfind('/');
  const DirFd dir = TRY(open_directory(slash == 0 ? "/" : path.substr(0, slash)));
  const std::string name = "/proc/self/fd/" + std::to_string(dir.get()) + "/" + path.substr(slash + 1);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() >= sizeof address.sun_path)
    return fail(VIR_ERR_INTERNAL_ERROR, "connect to " + quote(path) + ": name is too long");
  name.copy(address.sun_path, name.size());
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return sys_fail("connect to " + quote(path));
  return socket;
}

Result<void> Channel::send(const controller::Request& request, int timeout_ms, std::span<const int> files) {
  const auto bytes = xdr::encode(request);
  const auto socket = this->socket();
  for (;;) {
    auto sent = controller::send_packet(socket->get(), bytes, files);
    if (sent || sent.error().sys_errno != EAGAIN) return sent;
    pollfd writable{socket->get(), POLLOUT, 0};
    if (::poll(&writable, 1, timeout_ms) == 0)
      return fail(VIR_ERR_OPERATION_TIMEOUT, "the domain's controller does not read");
  }
}

Result<std::uint32_t> Channel::enter(OnDone on_done, bool is_waiting) {
  const std::lock_guard lock(mutex_);
  if (is_closed_) return fail(VIR_ERR_OPERATION_FAILED, "the domain's controller is gone");
  const auto serial = next_serial_++;
  if (is_waiting || on_done) waiters_[serial] = {std::move(on_done), is_waiting, false, {}};
  return serial;
}

Result<Answer> Channel::request(RequestBody body, int timeout_ms, std::span<const int> files, OnDone on_done) {
  const controller::Request request{TRY(enter(std::move(on_done), true)), std::move(body)};
  const auto sent = send(request, timeout_ms, files);
  std::unique_lock lock(mutex_);
  const auto& entry = waiters_[request.serial];
  const bool in_time = sent && arrived_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                                                 [&] { return entry.is_lost || entry.answer.has_value(); });
  auto waiter = std::move(waiters_[request.serial]);
  waiters_.erase(request.serial);
  if (!sent) return sent.error();
  if (!waiter.answer)
    return in_time ? fail(VIR_ERR_OPERATION_FAILED, "the domain's controller is gone")
                   : fail(VIR_ERR_OPERATION_TIMEOUT, "the domain's controller does not answer");
  if (const auto* error = std::get_if<controller::WireError>(&waiter.answer->body))
    return Error{error->code, error->sys_errno, error->text};
  return std::move(*waiter.answer);
}

Result<void> Channel::tell(RequestBody body, int timeout_ms, OnDone on_done) {
  const controller::Request request{TRY(enter(std::move(on_done), false)), std::move(body)};
  auto sent = send(request, timeout_ms, {});
  if (!sent) {
    const std::lock_guard lock(mutex_);
    waiters_.erase(request.serial);
  }
  return sent;
}

Channel::OnDone Channel::on_done_of(const controller::Reply& reply) {
  const std::lock_guard lock(mutex_);
  const auto waiter = waiters_.find(reply.serial);
  if (waiter == waiters_.end() || std::holds_alternative<controller::WireError>(reply.body)) return {};
  return std::move(waiter->second.on_done);
}

bool Channel::read_available(const std::function<void(controller::Note)>& on_note) {
  const std::lock_guard one_reader(reading_);
  const auto socket = this->socket();  // the only one while we read
  for (;;) {
    auto packet = controller::recv_packet(socket->get());
    // It left before it had read all that it was told. What it said before comes after the news of that (unix(7)).
    if (!packet && packet.error().sys_errno == ECONNRESET) packet = controller::recv_packet(socket->get());
    if (!packet && packet.error().sys_errno == EAGAIN) return true;
    if (!packet || packet->bytes.empty()) break;
    auto message = xdr::decode_exact<controller::FromController>(packet->bytes);
    if (!message) break;  // nobody who speaks our language
    if (auto* note = std::get_if<controller::Note>(&*message)) {
      on_note(std::move(*note));
      continue;
    }
    auto& reply = std::get<controller::Reply>(*message);
    if (const auto on_done = on_done_of(reply)) on_done(reply.body);
    const std::lock_guard lock(mutex_);
    // Nobody waits any more: its files are closed here.
    const auto waiter = waiters_.find(reply.serial);
    if (waiter == waiters_.end()) continue;
    if (waiter->second.is_waiting)
      waiter->second.answer = Answer{std::move(reply.body), std::move(packet->files)};
    else
      waiters_.erase(waiter);
    arrived_.notify_all();
  }
  close();
  return false;
}

void Channel::close() {
  const std::lock_guard lock(mutex_);
  is_closed_ = true;
  std::erase_if(waiters_, [](const auto& entry) { return !entry.second.is_waiting; });
  for (auto& [serial, waiter] : waiters_) waiter.is_lost = !waiter.answer;
  arrived_.notify_all();
}

bool Channel::is_closed() const {
  const std::lock_guard lock(mutex_);
  return is_closed_;
}

void Channel::reopen(SocketFd socket) {
  const std::lock_guard no_reader(reading_);
  const std::lock_guard lock(mutex_);
  socket_ = std::make_shared<const SocketFd>(std::move(socket));
  is_closed_ = false;
}

std::shared_ptr<const SocketFd> Channel::socket() const {
  const std::lock_guard lock(mutex_);
  return socket_;
}

}  // namespace virtuserns::userns
