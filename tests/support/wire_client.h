// WireClient: speaks the protocol by hand, well or badly, over a real socket; TestServer: the front end in a thread.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "driver/rpc/error.h"
#include "driver/rpc/message.h"
#include "driver/rpc/protocol.h"
#include "driver/rpc/server.h"
#include "tests/support/fake_driver.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::test {

using rpc::Header;
using rpc::MessageType;
using rpc::Status;

class WireClient {
 public:
  explicit WireClient(const std::string& path, int timeout_s = 5)
      : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    is_connected_ = ::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    timeval timeout{timeout_s, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  }

  [[nodiscard]] bool is_connected() const { return is_connected_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

  bool send_bytes(const void* bytes, std::size_t size) {
    return ::send(fd_.get(), bytes, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
  }
  bool send_frame(const rpc::Frame& frame) {
    std::size_t bytes = 0, fds = 0;
    auto sent = rpc::send_frame(fd_, frame, bytes, fds);
    for (int i = 0; sent && !*sent && i < 2000; ++i) {
      ::usleep(1000);
      sent = rpc::send_frame(fd_, frame, bytes, fds);
    }
    return sent && *sent;
  }
  template <class T>
  std::uint32_t send_call(std::int32_t procedure, const T& args, std::uint32_t program = rpc::kRemoteProgram) {
    const std::uint32_t serial = next_serial_++;
    (void)send_frame(rpc::make_frame({program, 1, procedure, MessageType::kCall, serial, Status::kOk}, args).value());
    return serial;
  }
  std::uint32_t send_call(std::int32_t procedure) {
    const std::uint32_t serial = next_serial_++;
    (void)send_frame(rpc::make_frame({rpc::kRemoteProgram, 1, procedure, MessageType::kCall, serial, Status::kOk}));
    return serial;
  }

  // nullopt: closed, timed out or garbage.
  std::optional<rpc::Message> read_message() {
    std::uint8_t length[4];
    if (!read_exactly(length, 4)) return std::nullopt;
    const std::size_t size =
        std::size_t{length[0]} << 24 | std::size_t{length[1]} << 16 | std::size_t{length[2]} << 8 | length[3];
    if (size < 28 || size > rpc::kMaxFrameBytes) return std::nullopt;
    std::vector<std::uint8_t> frame(size - 4);
    if (!read_exactly(frame.data(), frame.size())) return std::nullopt;
    rpc::Message message;
    message.header = xdr::decode<Header>(frame).value();
    message.payload.assign(frame.begin() + 24, frame.end());
    return message;
  }
  std::optional<rpc::Message> call(std::int32_t procedure) {
    send_call(procedure);
    return read_message();
  }
  template <class T>
  std::optional<rpc::Message> call(std::int32_t procedure, const T& args) {
    send_call(procedure, args);
    return read_message();
  }
  // AUTH_LIST and CONNECT_OPEN, as libvirt's client begins.
  bool open(const std::string& name = "userns:///system", std::uint32_t flags = 0) {
    const auto list = call(66);
    const auto opened = call(1, rpc::wire::OpenArgs{name, flags});
    return list && opened && opened->header.status == Status::kOk;
  }
  // True when the server has closed: reads away what it still sent.
  bool is_closed_by_server() {
    char buffer[4096];
    for (;;) {
      const ssize_t count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
      if (count == 0 || (count < 0 && errno == ECONNRESET)) return true;
      if (count < 0) return false;
    }
  }

 private:
  bool read_exactly(std::uint8_t* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t count = ::recv(fd_.get(), bytes, size, 0);
      if (count <= 0) return false;
      bytes += count;
      size -= static_cast<std::size_t>(count);
    }
    return true;
  }

  SocketFd fd_;
  bool is_connected_ = false;
  std::uint32_t next_serial_ = 1;
};

template <class T>
T reply_of(const std::optional<rpc::Message>& message) {
  if (!message || message->header.status != Status::kOk) return T{};
  auto value = xdr::decode<T>(message->payload);
  return value ? std::move(*value) : T{};
}

inline rpc::wire::RemoteError error_of(const std::optional<rpc::Message>& message) {
  if (!message || message->header.status != Status::kError) return {};
  auto value = xdr::decode<rpc::wire::RemoteError>(message->payload);
  return value ? std::move(*value) : rpc::wire::RemoteError{};
}

class TestServer {
 public:
  explicit TestServer(DaemonConfig config = {}) : loop_(Loop::create().value()), driver_(&events_) {
    config.min_workers = 2;
    config.prio_workers = 2;
    server_ = std::make_unique<rpc::Server>(*loop_, config, rpc::SessionHost{{{"userns", &driver_}}, false}, events_);
    (void)server_->start();
    (void)server_->listen(socket(), 0700, "", false);
    (void)server_->listen(socket_ro(), 0777, "", true);
    thread_ = std::thread([this] { loop_->run(); });
  }
  ~TestServer() {
    loop_->quit();
    thread_.join();
    server_.reset();
  }
  [[nodiscard]] std::string socket() const { return dir_.path() + "/sock"; }
  [[nodiscard]] std::string socket_ro() const { return dir_.path() + "/sock-ro"; }
  FakeDriver& driver() { return driver_; }
  EventHub& events() { return events_; }
  Loop& loop() { return *loop_; }
  rpc::Server& server() { return *server_; }

 private:
  TempDir dir_;
  EventHub events_;
  std::unique_ptr<Loop> loop_;
  FakeDriver driver_;
  std::unique_ptr<rpc::Server> server_;
  std::thread thread_;
};

}  // namespace virtuserns::test
