#include "driver/compute/frame.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

namespace virtuserns::compute {
namespace {

using testing::HasSubstr;

class Frames : public testing::Test {
 protected:
  Frames() {
    ::signal(SIGPIPE, SIG_IGN);
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ours_ = Fd(pair[0]), theirs_ = Fd(pair[1]);
  }
  void send(std::string_view bytes) {
    ASSERT_EQ(::write(theirs_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  Fd ours_, theirs_;
};

std::string framed(std::string_view content) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(content.size() >> shift & 255);
  return bytes.append(content);
}

TEST_F(Frames, ComeOneAfterAnother) {
  send(framed("one") + framed("") + framed("three"));
  theirs_.reset();
  for (const char* wanted : {"one", "", "three"}) EXPECT_EQ(read_frame(ours_).value(), wanted);
  EXPECT_EQ(read_frame(ours_).value(), std::nullopt);
}

TEST_F(Frames, MayComeInPieces) {
  const auto bytes = framed("in pieces");
  std::thread sender([&] {
    for (const char byte : bytes) {
      send({&byte, 1});
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(read_frame(ours_).value(), "in pieces");
  sender.join();
}

TEST_F(Frames, TheLongestAndALongerOne) {
  const std::string longest(kMaxFrame, 'x');
  std::thread sender([&] { EXPECT_TRUE(write_frame(theirs_, longest)); });
  EXPECT_EQ(read_frame(ours_).value()->size(), kMaxFrame);
  sender.join();
  EXPECT_FALSE(write_frame(theirs_, longest + "x"));
  send(std::string("\x01\0\0\x01", 4));
  EXPECT_THAT(read_frame(ours_).error().text, HasSubstr("16777216 are possible"));
}

TEST_F(Frames, EveryCutIsAnError) {
  const auto bytes = framed("cut");
  for (std::size_t size = 1; size < bytes.size(); ++size) {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const Fd ours(pair[0]);
    Fd theirs(pair[1]);
    ASSERT_EQ(::write(theirs.get(), bytes.data(), size), static_cast<ssize_t>(size));
    theirs.reset();
    EXPECT_FALSE(read_frame(ours)) << size;
  }
}

TEST_F(Frames, ToOneWhoHasClosed) {
  ours_.reset();
  EXPECT_FALSE(write_frame(theirs_, "x"));
}

TEST_F(Frames, ADescriptorGoesWithOne) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  ASSERT_TRUE(write_frame_with(theirs_, "with", write_end));
  ASSERT_TRUE(write_frame(theirs_, "without"));
  write_end.reset();
  auto [text, passed] = read_frame_with(ours_).value();
  EXPECT_EQ(text, "with");
  ASSERT_TRUE(passed);
  ASSERT_EQ(::write(passed.get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(read_end.get(), &byte, 1), 1);
  const auto second = read_frame_with(ours_).value();
  EXPECT_EQ(second.first, "without");
  EXPECT_FALSE(second.second);
}

}  // namespace
}  // namespace virtuserns::compute
