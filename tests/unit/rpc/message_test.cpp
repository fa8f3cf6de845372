#include "driver/rpc/message.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>

namespace virtuserns::rpc {
namespace {

constexpr Header kCall{0x20008086, 1, 5, MessageType::kCall, 7, Status::kOk};

std::vector<std::uint8_t> length_word(std::uint32_t n) {
  std::vector<std::uint8_t> bytes;
  xdr::Writer(bytes).u32(n);
  return bytes;
}

TEST(Message, FrameBytes) {
  const Frame frame = make_frame({1, 2, 3, MessageType::kReply, 4, Status::kError});
  const std::vector<std::uint8_t> expected = {0, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0,
                                              0, 3, 0, 0,  0, 1, 0, 0, 0, 4, 0, 0, 0, 1};
  EXPECT_EQ(frame.bytes, expected);
}

TEST(Message, ArrivesByteByByteAndInOnePiece) {
  const Frame frame = make_frame(kCall, std::string("hello")).value();
  InputBudget budget(1 << 20);
  Receiver slow(budget), fast(budget);
  for (std::size_t i = 0; i + 1 < frame.bytes.size(); ++i) {
    ASSERT_TRUE(slow.append(std::span(frame.bytes).subspan(i, 1)));
    const auto message = slow.next();
    ASSERT_TRUE(message);
    EXPECT_FALSE(*message);
    EXPECT_TRUE(slow.is_mid_message());
  }
  ASSERT_TRUE(slow.append(std::span(frame.bytes).last(1)));
  EXPECT_EQ(slow.next().value()->header.serial, 7U);
  EXPECT_FALSE(slow.is_mid_message());

  auto two = frame.bytes;
  two.insert(two.end(), frame.bytes.begin(), frame.bytes.end());
  ASSERT_TRUE(fast.append(two));
  EXPECT_TRUE(*fast.next());
  EXPECT_TRUE(*fast.next());
  EXPECT_FALSE(*fast.next());
}

TEST(Message, F22InvalidLengthsAreRefusedWithoutMemory) {
  for (const std::uint32_t length : {0U, 1U, 3U, 4U, 8U, 27U, 33554437U, 0x80000000U, 0xffffffffU}) {
    InputBudget budget(0);
    Receiver receiver(budget);
    ASSERT_TRUE(receiver.append(length_word(length)));
    EXPECT_FALSE(receiver.next()) << length;
  }
}

TEST(Message, F23MemoryFollowsWhatArrivedAndIsBounded) {
  InputBudget budget(1 << 20);
  Receiver first(budget), second(budget);
  const std::vector<std::uint8_t> part(64 * 1024);
  ASSERT_TRUE(first.append(length_word(kMaxFrameBytes)));
  ASSERT_TRUE(second.append(length_word(kMaxFrameBytes)));
  int pieces = 0;
  while (pieces < 100 && first.append(part)) ++pieces;
  EXPECT_GT(pieces, 6);
  EXPECT_LT(pieces, 17);
  EXPECT_TRUE(second.append(part));  // its own share is left
}

TEST(Message, BudgetComesBack) {
  InputBudget budget(1 << 20);
  const Frame big = make_frame(kCall, std::string(500'000, 'x')).value();
  for (int i = 0; i < 10; ++i) {
    Receiver receiver(budget);
    ASSERT_TRUE(receiver.append(big.bytes)) << i;
    ASSERT_TRUE(*receiver.next());
    ASSERT_TRUE(receiver.append(big.bytes)) << i;
  }
}

TEST(Message, ReplyOverTheLimitIsAnError) {
  FrameBuilder builder(kCall);
  builder.bytes().resize(kMaxFrameBytes + 1);
  EXPECT_FALSE(std::move(builder).finish());
}

class MessageFds : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ours_ = SocketFd(ends[0]);
    theirs_ = SocketFd(ends[1]);
  }
  static Fd null() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
  static Frame with_fds(std::size_t count, std::size_t claimed) {
    FrameBuilder builder({0x20008086, 1, 310, MessageType::kCallWithFds, 1, Status::kOk});
    xdr::Writer(builder.bytes()).u32(static_cast<std::uint32_t>(claimed));
    Frame frame = std::move(builder).finish().value();
    for (std::size_t i = 0; i < count; ++i) frame.fds.push_back(null());
    return frame;
  }
  void send(const Frame& frame) {
    std::size_t bytes = 0, fds = 0;
    const auto sent = send_frame(theirs_, frame, bytes, fds);
    ASSERT_TRUE(sent && *sent);
  }
  // Everything there is to read; the last result of next().
  Result<std::optional<Message>> receive() {
    for (;;) {
      const auto read = TRY(receiver_.read_from(ours_));
      if (read != Receiver::Read::kSome) return receiver_.next();
      auto message = TRY(receiver_.next());
      if (message) return std::optional<Message>(std::move(*message));
    }
  }
  SocketFd ours_, theirs_;
  InputBudget budget_{1 << 20};
  Receiver receiver_{budget_};
};

TEST_F(MessageFds, TravelBesideTheMessage) {
  send(with_fds(3, 3));
  const auto message = receive();
  ASSERT_TRUE(message && *message);
  EXPECT_EQ((*message)->fds.size(), 3U);
  EXPECT_FALSE(receiver_.is_mid_message());
}

TEST_F(MessageFds, PipelinedCallsKeepTheirDescriptors) {
  send(make_frame(kCall));
  send(with_fds(1, 1));
  send(make_frame(kCall));
  send(with_fds(2, 2));
  std::vector<std::size_t> counts;
  for (int i = 0; i < 4; ++i) {
    auto message = receiver_.next();
    ASSERT_TRUE(message);
    if (!*message) message = receive();
    ASSERT_TRUE(message && *message);
    counts.push_back((*message)->fds.size());
  }
  EXPECT_EQ(counts, (std::vector<std::size_t>{0, 1, 0, 2}));
}

TEST_F(MessageFds, F28Lies) {
  send(with_fds(0, 33));
  EXPECT_FALSE(receive());
}

TEST_F(MessageFds, F28UnsolicitedAreRefused) {
  Frame frame = make_frame(kCall);
  frame.fds.push_back(null());
  send(frame);
  auto message = receive();  // the call itself, perhaps
  if (message && *message) message = receive();
  EXPECT_FALSE(message && *message);
}

TEST_F(MessageFds, F28MissingIsNotInventedFromOtherBytes) {
  send(with_fds(0, 2));
  ASSERT_EQ(::send(theirs_.get(), "\0\0\0\0", 4, 0), 4);
  EXPECT_FALSE(receive());
}

}  // namespace
}  // namespace virtuserns::rpc
