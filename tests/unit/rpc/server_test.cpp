// The front end as clients meet it: real sockets, real threads, clients that behave and clients that do not.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>

#include "tests/support/wire_client.h"

namespace virtuserns::test {
namespace {

using namespace rpc::wire;  // NOLINT: the test speaks the wire
using namespace std::chrono_literals;

bool soon(const std::function<bool()>& fact) {
  for (int i = 0; i < 400; ++i) {
    if (fact()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

// A gate that slow calls wait at.
class Gate {
 public:
  void wait() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    open_.wait_for(lock, 10s, [this] { return is_open_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    open_.notify_all();
  }
  int waiting() {
    const std::lock_guard lock(mutex_);
    return waiting_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable open_;
  bool is_open_ = false;
  int waiting_ = 0;
};

TEST(Server, OpensAndAnswers) {
  TestServer server;
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  EXPECT_EQ(reply_of<TextReply>(client.call(3)).text, "FAKE");
  EXPECT_EQ(reply_of<TextReply>(client.call(110)).text, "userns:///system");
  EXPECT_EQ(reply_of<TextReply>(client.call(14, DomainFlagsArgs{FakeDriver::ref(1), 0})).text.substr(0, 7),
            "<domain");
  EXPECT_EQ(error_of(client.call(12, DomainArgs{FakeDriver::ref(1)})).code, 0);
  EXPECT_EQ(server.driver().last_caller_.uid, ::getuid());
  EXPECT_EQ(server.driver().last_caller_.pid, ::getpid());
  const auto closed = client.call(2);
  ASSERT_TRUE(closed);
  EXPECT_EQ(closed->header.status, Status::kOk);
  EXPECT_TRUE(client.is_closed_by_server());
  EXPECT_TRUE(soon([&] { return server.driver().closed_connection_ == server.driver().last_caller_.connection_id; }));
}

TEST(Server, ReadOnlySocketAndFlag) {
  TestServer server;
  WireClient by_socket(server.socket_ro()), by_flag(server.socket());
  ASSERT_TRUE(by_socket.open());
  ASSERT_TRUE(by_flag.open("userns:///system", 1));
  for (WireClient* client : {&by_socket, &by_flag}) {
    EXPECT_EQ(error_of(client->call(12, DomainArgs{FakeDriver::ref(1)})).code, VIR_ERR_OPERATION_DENIED);
    EXPECT_EQ(reply_of<IntReply>(client->call(51)).value, 2);
  }
}

TEST(Server, RepliesInAnyOrder) {
  TestServer server;
  Gate gate;
  server.driver().on_slow_ = [&] { gate.wait(); };
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  const auto slow = client.send_call(102);
  const auto fast = client.send_call(3);
  const auto first = client.read_message();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->header.serial, fast);
  gate.open();
  const auto second = client.read_message();
  ASSERT_TRUE(second);
  EXPECT_EQ(second->header.serial, slow);
}

TEST(Server, CallsInFlightAreLimitedAndTheRestWaits) {
  DaemonConfig config;
  config.max_client_requests = 3;
  TestServer server(config);
  Gate gate;
  server.driver().on_slow_ = [&] { gate.wait(); };
  WireClient greedy(server.socket()), other(server.socket());
  ASSERT_TRUE(greedy.open());
  ASSERT_TRUE(other.open());
  for (int i = 0; i < 10; ++i) greedy.send_call(102);
  EXPECT_TRUE(soon([&] { return gate.waiting() == 3; }));
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(gate.waiting(), 3);
  EXPECT_TRUE(other.call(3));  // nobody else notices
  (void)greedy.send_frame(rpc::make_frame({rpc::kKeepaliveProgram, 1, 1, MessageType::kEvent, 0, Status::kOk}));
  const auto pong = greedy.read_message();  // nor does its keepalive
  ASSERT_TRUE(pong);
  EXPECT_EQ(pong->header.procedure, rpc::kKeepalivePong);
  gate.open();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(greedy.read_message()) << i;
}

TEST(Server, F25PipeliningWithoutReadingIsHeldBack) {
  TestServer server;
  WireClient client(server.socket()), good(server.socket());
  ASSERT_TRUE(client.open());
  ASSERT_TRUE(good.open());
  // Without its replies being read it soon is not read itself: the socket fills up.
  const auto frame = rpc::make_frame({rpc::kRemoteProgram, 1, 14, MessageType::kCall, 1, Status::kOk},
                                     DomainFlagsArgs{FakeDriver::ref(1), 0})
                         .value();
  int sent = 0;
  for (; sent < 200'000; ++sent)
    if (::send(client.fd(), frame.bytes.data(), frame.bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
      std::this_thread::sleep_for(20ms);
      if (::send(client.fd(), frame.bytes.data(), frame.bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
    }
  EXPECT_LT(sent, 200'000);
  EXPECT_TRUE(good.call(3));
}

TEST(Server, F26WrongHeadersAreAnsweredOrDropped) {
  TestServer server;
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  const auto ask = [&](Header header) { (void)client.send_frame(rpc::make_frame(header)); };
  ask({0x11111111, 1, 3, MessageType::kCall, 100, Status::kOk});
  EXPECT_EQ(error_of(client.read_message()).code, VIR_ERR_RPC);
  ask({rpc::kRemoteProgram, 2, 3, MessageType::kCall, 101, Status::kOk});
  EXPECT_EQ(error_of(client.read_message()).code, VIR_ERR_RPC);
  ask({rpc::kRemoteProgram, 1, 100'000, MessageType::kCall, 102, Status::kOk});
  EXPECT_EQ(error_of(client.read_message()).message.value_or("").substr(0, 17), "unknown procedure");
  ask({rpc::kRemoteProgram, 1, 3, MessageType::kCall, 103, Status::kError});
  EXPECT_EQ(error_of(client.read_message()).code, VIR_ERR_RPC);
  ask({rpc::kRemoteProgram, 1, 3, MessageType::kReply, 104, Status::kOk});           // dropped
  ask({rpc::kRemoteProgram, 1, 3, static_cast<MessageType>(99), 105, Status::kOk});  // dropped
  ask({rpc::kRemoteProgram, 1, 201, MessageType::kStream, 106, Status::kContinue});  // of no stream: dropped
  EXPECT_EQ(reply_of<TextReply>(client.call(3)).text, "FAKE");
}

TEST(Server, F26BeforeOpenAndF22Lengths) {
  TestServer server;
  WireClient early(server.socket());
  EXPECT_NE(error_of(early.call(3)).code, 0);
  EXPECT_EQ(server.driver().calls_, 0);
  for (const std::uint32_t length : {0U, 3U, 27U, 33554437U, 0xffffffffU}) {
    WireClient bad(server.socket());
    std::vector<std::uint8_t> bytes;
    xdr::Writer(bytes).u32(length);
    bytes.resize(64);
    ASSERT_TRUE(bad.send_bytes(bytes.data(), bytes.size()));
    EXPECT_TRUE(bad.is_closed_by_server()) << length;
  }
  EXPECT_TRUE(early.open());
}

TEST(Server, DescriptorsWithCallsAndReplies) {
  TestServer server;
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  rpc::FrameBuilder builder({rpc::kRemoteProgram, 1, 310, MessageType::kCallWithFds, 50, Status::kOk});
  xdr::Writer(builder.bytes()).u32(2);
  xdr::Writer(builder.bytes()).write(DomainFlagsArgs{FakeDriver::ref(1), 0});
  rpc::Frame frame = std::move(builder).finish().value();
  frame.fds.emplace_back(::dup(0));
  frame.fds.emplace_back(::dup(0));
  ASSERT_TRUE(client.send_frame(frame));
  EXPECT_EQ(reply_of<DomainReply>(client.read_message()).dom.name, "fake1");
  EXPECT_EQ(server.driver().files_, 2U);

  client.send_call(1, DomainFlagsArgs{FakeDriver::ref(1), 0}, rpc::kLxcProgram);
  const auto reply = client.read_message();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->header.type, MessageType::kReplyWithFds);
  EXPECT_EQ(reply->payload, (std::vector<std::uint8_t>{0, 0, 0, 6}));
  int received = 0;
  for (int i = 0; i < 6; ++i) {
    char nul = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)];
    iovec io{&nul, 1};
    msghdr header{};
    header.msg_iov = &io;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    if (::recvmsg(client.fd(), &header, MSG_CMSG_CLOEXEC) != 1 || nul != 0) break;
    if (const cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr && part->cmsg_len == CMSG_LEN(sizeof(int))) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part), sizeof fd);
      const Fd owner(fd);
      ++received;
    }
  }
  EXPECT_EQ(received, 6);
  EXPECT_TRUE(client.call(3));
}

TEST(Server, F28UnsolicitedDescriptorsEndTheConnection) {
  TestServer server;
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  rpc::Frame frame = rpc::make_frame({rpc::kRemoteProgram, 1, 3, MessageType::kCall, 9, Status::kOk});
  frame.fds.emplace_back(::dup(0));
  (void)client.send_frame(frame);
  EXPECT_TRUE(client.is_closed_by_server());
}

TEST(Server, EventsAreFilteredAndNumbered) {
  TestServer server;
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  const auto all = reply_of<IntReply>(client.call(316, EventRegisterArgs{0, {}})).value;
  const auto one = reply_of<IntReply>(client.call(316, EventRegisterArgs{0, FakeDriver::ref(1)})).value;
  EXPECT_NE(all, one);
  EXPECT_EQ(error_of(client.call(316, EventRegisterArgs{99, {}})).code, VIR_ERR_INTERNAL_ERROR);

  server.events().emit({FakeDriver::ref(2), LifecycleEvent{VIR_DOMAIN_EVENT_STARTED, 0}});
  server.events().emit({FakeDriver::ref(1), RebootEvent{}});  // not asked for
  server.events().emit({FakeDriver::ref(1), LifecycleEvent{VIR_DOMAIN_EVENT_SUSPENDED, 3}});
  struct Told {
    std::int32_t callback;
    LifecycleMessage message;
  };
  const auto read = [&] {
    const auto message = client.read_message();
    EXPECT_TRUE(message && message->header.type == MessageType::kEvent && message->header.serial == 0 &&
                message->header.procedure == 318);
    return message ? xdr::decode_exact<Told>(message->payload).value() : Told{};
  };
  const Told first = read(), second = read(), third = read();
  EXPECT_EQ(first.callback, all);
  EXPECT_EQ(first.message.dom, FakeDriver::ref(2));
  EXPECT_EQ(second.callback, all);
  EXPECT_EQ(third.callback, one);
  EXPECT_EQ(third.message.event, VIR_DOMAIN_EVENT_SUSPENDED);
  EXPECT_EQ(third.message.detail, 3);

  EXPECT_EQ(client.call(317, IntArgs{all})->header.status, Status::kOk);
  EXPECT_NE(error_of(client.call(317, IntArgs{all})).code, 0);
  server.events().emit({FakeDriver::ref(2), LifecycleEvent{}});
  EXPECT_EQ(reply_of<TextReply>(client.call(3)).text, "FAKE");  // and no event before it
}

TEST(Server, EventOfACallComesBeforeItsReply) {
  TestServer server;
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  ASSERT_TRUE(client.call(316, EventRegisterArgs{0, {}}));
  client.send_call(12, DomainArgs{FakeDriver::ref(1)});
  EXPECT_EQ(client.read_message()->header.type, MessageType::kEvent);
  EXPECT_EQ(client.read_message()->header.type, MessageType::kReply);
}

TEST(Server, LegacyEvents) {
  TestServer server;
  WireClient client(server.socket());
  ASSERT_TRUE(client.open());
  EXPECT_EQ(reply_of<IntReply>(client.call(105)).value, 1);
  server.events().emit({FakeDriver::ref(1), LifecycleEvent{2, 1}});
  const auto message = client.read_message();
  ASSERT_TRUE(message);
  EXPECT_EQ(message->header.procedure, 107);
  EXPECT_EQ(xdr::decode_exact<LifecycleMessage>(message->payload).value().event, 2);
  EXPECT_EQ(reply_of<IntReply>(client.call(106)).value, 0);
}

TEST(Server, F32SubscriberThatNeverReadsIsDroppedAndOthersSeeOrder) {
  TestServer server;
  WireClient deaf(server.socket()), good(server.socket());
  ASSERT_TRUE(deaf.open());
  ASSERT_TRUE(good.open());
  ASSERT_TRUE(deaf.call(316, EventRegisterArgs{17, {}}));
  ASSERT_TRUE(good.call(316, EventRegisterArgs{0, {}}));
  const TypedParams bulk{{"x", std::string(100'000, 'x')}};
  for (int i = 0; i < 200; ++i) {  // 20 MB for the deaf one
    server.events().emit({FakeDriver::ref(1), TunableEvent{bulk}});
    server.events().emit({FakeDriver::ref(1), LifecycleEvent{i, 0}});
  }
  struct Told {
    std::int32_t callback;
    LifecycleMessage message;
  };
  for (int i = 0; i < 200; ++i) {
    const auto message = good.read_message();
    ASSERT_TRUE(message);
    EXPECT_EQ(xdr::decode<Told>(message->payload).value().message.event, i);
  }
  EXPECT_TRUE(deaf.is_closed_by_server());
}

TEST(Server, ClientsOverALimitTakeThePlaceOfIdleOnes) {
  DaemonConfig config;
  config.max_clients = 20;
  TestServer server(config);
  WireClient old(server.socket());
  ASSERT_TRUE(old.open());
  std::vector<std::unique_ptr<WireClient>> idle;
  for (int i = 0; i < 60; ++i) idle.push_back(std::make_unique<WireClient>(server.socket()));
  WireClient late(server.socket());
  EXPECT_TRUE(late.open());
  EXPECT_TRUE(old.call(3));  // who is open stays
  EXPECT_TRUE(idle.front()->is_closed_by_server());
}

TEST(Server, OpenClientsAreRefusedOverTheLimit) {
  DaemonConfig config;
  config.max_clients = 3;
  TestServer server(config);
  std::vector<std::unique_ptr<WireClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<WireClient>(server.socket()));
    ASSERT_TRUE(clients.back()->open());
  }
  WireClient late(server.socket());
  EXPECT_FALSE(late.open());
  clients.pop_back();
  EXPECT_TRUE(soon([&] { return WireClient(server.socket()).open(); }));
}

TEST(Server, KeepaliveBothWays) {
  DaemonConfig config;
  config.keepalive_interval = 1;
  config.keepalive_count = 1;
  TestServer server(config);
  WireClient silent(server.socket(), 8), plain(server.socket());
  ASSERT_TRUE(plain.open());
  ASSERT_TRUE(silent.open());
  ASSERT_EQ(reply_of<IntReply>(silent.call(60, IntArgs{10})).value, 1);
  const auto ping = silent.read_message();
  ASSERT_TRUE(ping);
  EXPECT_EQ(ping->header.program, rpc::kKeepaliveProgram);
  EXPECT_EQ(ping->header.procedure, rpc::kKeepalivePing);
  EXPECT_TRUE(silent.is_closed_by_server());  // it did not answer
  EXPECT_TRUE(plain.call(3));                 // it never said that it would
}

TEST(Server, F25ClientsThatVanishMidCallLeaveNothing) {
  TestServer server;
  server.driver().on_slow_ = [] { std::this_thread::sleep_for(1ms); };
  for (int i = 0; i < 300; ++i) {
    WireClient client(server.socket());
    client.send_call(66);
    client.send_call(1, OpenArgs{"", 0});
    client.send_call(102);
  }
  EXPECT_TRUE(soon([&] {
    std::promise<std::size_t> count;
    server.loop().post([&] { count.set_value(server.server().client_count()); });
    return count.get_future().get() == 0;
  }));
}

// ---- streams ----

class Streams : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(client_.open());
    serial_ = client_.send_call(201, OpenConsoleArgs{FakeDriver::ref(1), {}, 0});
    const auto reply = client_.read_message();
    ASSERT_TRUE(reply && reply->header.status == Status::kOk && reply->header.type == MessageType::kReply);
    far_ = server_.driver().console_peer_.get();
    ::fcntl(far_, F_SETFL, 0);
    timeval timeout{5, 0};
    ::setsockopt(far_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  }
  Header packet(Status status, MessageType type = MessageType::kStream) const {
    return {rpc::kRemoteProgram, 1, 201, type, serial_, status};
  }
  void send(Status status, const std::string& data = "") {
    (void)client_.send_frame(
        rpc::make_data_frame(packet(status), {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()}));
  }
  void expect(Status status, const std::string& data) {
    const auto message = client_.read_message();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->header.type, MessageType::kStream);
    EXPECT_EQ(message->header.serial, serial_);
    EXPECT_EQ(message->header.procedure, 201);
    EXPECT_EQ(message->header.status, status);
    EXPECT_EQ(std::string(message->payload.begin(), message->payload.end()), data);
  }
  TestServer server_;
  WireClient client_{server_.socket()};
  std::uint32_t serial_ = 0;
  int far_ = -1;
};

TEST_F(Streams, CarryBothWaysAndFinish) {
  ASSERT_EQ(::write(far_, "login:", 6), 6);
  expect(Status::kContinue, "login:");
  send(Status::kContinue, "root\n");
  char buffer[16];
  ASSERT_EQ(::read(far_, buffer, sizeof buffer), 5);
  EXPECT_EQ(std::string(buffer, 5), "root\n");
  send(Status::kOk);
  expect(Status::kOk, "");
  EXPECT_EQ(::read(far_, buffer, sizeof buffer), 0);
  EXPECT_TRUE(client_.call(3));
}

TEST_F(Streams, EndOfDataIsAnEmptyPacket) {
  ASSERT_EQ(::write(far_, "bye", 3), 3);
  server_.driver().console_peer_.reset();
  expect(Status::kContinue, "bye");
  expect(Status::kContinue, "");
  send(Status::kOk);
  expect(Status::kOk, "");
}

TEST_F(Streams, AbortIsAnswered) {
  send(Status::kError);
  expect(Status::kOk, "");
  send(Status::kContinue, "late");  // of no stream: dropped
  EXPECT_TRUE(client_.call(3));
}

TEST_F(Streams, HoleIsAnError) {
  (void)client_.send_frame(rpc::make_data_frame(packet(Status::kContinue, MessageType::kStreamHole), {}));
  const auto message = client_.read_message();
  ASSERT_TRUE(message);
  EXPECT_NE(error_of(message).code, 0);
  EXPECT_EQ(message->header.type, MessageType::kStream);
}

TEST_F(Streams, F31ClientThatNeverReadsHoldsOnePacketUp) {
  ::fcntl(far_, F_SETFL, O_NONBLOCK);
  const std::string block(64 * 1024, 'x');
  std::size_t taken = 0;
  for (int idle = 0; idle < 20;) {
    const ssize_t count = ::write(far_, block.data(), block.size());
    if (count > 0)
      taken += static_cast<std::size_t>(count), idle = 0;
    else
      ++idle, std::this_thread::sleep_for(5ms);
    ASSERT_LT(taken, 16U << 20);
  }
  WireClient other(server_.socket());
  EXPECT_TRUE(other.open());
}

TEST_F(Streams, ConsoleThatNeverReadsStopsTheClientOnly) {
  const rpc::Frame frame = rpc::make_data_frame(packet(Status::kContinue), std::vector<std::uint8_t>(64 * 1024, 'x'));
  std::size_t sent = 0;
  for (int idle = 0; idle < 20;) {
    const ssize_t count = ::send(client_.fd(), frame.bytes.data(), frame.bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count == static_cast<ssize_t>(frame.bytes.size())) {
      sent += frame.bytes.size();
      idle = 0;
      continue;
    }
    if (count > 0) break;  // half a frame: enough
    ++idle;
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_LT(sent, 16U << 20);
  WireClient other(server_.socket());
  EXPECT_TRUE(other.open());
}

TEST_F(Streams, ConsoleThatReadsAgainGetsEverything) {
  const std::size_t total = 4U << 20;
  std::thread sender([&] {
    const rpc::Frame frame =
        rpc::make_data_frame(packet(Status::kContinue), std::vector<std::uint8_t>(64 * 1024, 'x'));
    for (std::size_t sent = 0; sent < total; sent += 64 * 1024)
      if (::send(client_.fd(), frame.bytes.data(), frame.bytes.size(), MSG_NOSIGNAL) < 0) return;
  });
  std::this_thread::sleep_for(100ms);  // until everything is full
  std::vector<char> buffer(64 * 1024);
  std::size_t received = 0;
  for (ssize_t count = 1; received < total && count > 0; received += count > 0 ? static_cast<std::size_t>(count) : 0)
    count = ::read(far_, buffer.data(), buffer.size());
  sender.join();
  EXPECT_EQ(received, total);
}

}  // namespace
}  // namespace virtuserns::test
