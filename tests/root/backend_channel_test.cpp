// What a daemon and a controller tell each other, and what comes of it when one of them does not.
#include <poll.h>
#include <sys/socket.h>

#include <atomic>

#include "tests/root/backend_fixture.h"

namespace virtuserns::test {
namespace {

// A controller answers and goes on at once: both are read in one go, before whoever asked has woken up.
TEST(Channel, WhatAnAnswerChangesIsRecordedBeforeLaterNotes) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  userns::Channel channel{SocketFd(pair[0])};
  const SocketFd peer(pair[1]);
  std::vector<std::string> order;
  std::thread asker([&] {
    EXPECT_TRUE(channel.request(controller::FreezeRequest{true}, 5000, {},
                                [&](const userns::ReplyBody&) { order.emplace_back("answer"); }));
  });
  const auto packet = controller::recv_packet(peer.get());
  ASSERT_TRUE(packet);
  const auto request = xdr::decode_exact<controller::Request>(packet->bytes);
  ASSERT_TRUE(request);
  controller::FromController reply{controller::Reply{request->serial, controller::EmptyReply{}}};
  ASSERT_TRUE(controller::send_packet(peer.get(), xdr::encode(reply)));
  controller::FromController note{controller::Note{controller::RebootedNote{}}};
  ASSERT_TRUE(controller::send_packet(peer.get(), xdr::encode(note)));
  EXPECT_TRUE(channel.read_available([&](controller::Note) { order.emplace_back("note"); }));
  asker.join();
  EXPECT_EQ(order, (std::vector<std::string>{"answer", "note"}));
}

// ---- a controller that hangs up and lives ----

// Its socket, out of sight of the daemon, and daemons of our own on it: as many as make it drop the others.
class HungUp {
 public:
  explicit HungUp(const std::string& socket) : socket_(socket) {
    fs::rename(socket_, socket_ + ".away");
    for (int i = 0; i < 17; ++i) {
      auto connected = userns::Channel::connect(socket_ + ".away");
      EXPECT_TRUE(connected);
      if (!connected) return;
      auto& channel = *channels_.emplace_back(std::make_unique<userns::Channel>(std::move(*connected)));
      EXPECT_TRUE(ask(channel, controller::StatusRequest{}));
    }
  }
  bool ask(const userns::RequestBody& body) { return ask(*channels_.back(), body); }
  void end() {
    channels_.clear();
    if (fs::exists(socket_ + ".away")) fs::rename(socket_ + ".away", socket_);
  }

 private:
  static bool ask(userns::Channel& channel, const userns::RequestBody& body) {
    std::atomic<bool> is_over = false;
    std::thread reader([&] {
      while (!is_over) {
        pollfd readable{channel.socket()->get(), POLLIN, 0};
        if (::poll(&readable, 1, 20) > 0) (void)channel.read_available([](controller::Note) {});
      }
    });
    const bool is_answered = static_cast<bool>(channel.request(body, 5000));
    is_over = true;
    reader.join();
    return is_answered;
  }
  std::string socket_;
  std::vector<std::unique_ptr<userns::Channel>> channels_;
};

struct HungUpTest : BackendTest {
  std::string run_file(const char* suffix) const { return paths.driver_run + "/" + format_uuid(uuid) + suffix; }
  bool hears(const std::vector<std::string>& wanted) {
    return eventually([&] {
      const std::lock_guard lock(mutex);
      return heard == wanted;
    });
  }
};

TEST_F(HungUpTest, TheNextRequestConnectsAgain) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain("trap 'exit 0' TERM; " + kIdle), 0));
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  HungUp others(run_file(".sock"));
  ASSERT_TRUE(eventually([&] { return !daemon->suspend(root, uuid); })) << "it has hung up, and is out of sight";
  EXPECT_EQ(daemon->state(uuid, 0)->state, VIR_DOMAIN_RUNNING);
  others.end();
  const auto suspended = daemon->suspend(root, uuid);
  ASSERT_TRUE(suspended) << suspended.error().text;
  ASSERT_TRUE(daemon->resume(root, uuid));
  ExecDef command;
  command.arguments.emplace_back("true");
  EXPECT_TRUE(daemon->exec(root, uuid, command, {}));
  const auto asked = daemon->shutdown(root, uuid, 0);
  ASSERT_TRUE(asked) << asked.error().text;
  EXPECT_TRUE(eventually([&] { return state(*daemon) == kOff + VIR_DOMAIN_SHUTOFF_SHUTDOWN; })) << state(*daemon);
  expect_nothing_left();
  // Suspended once or twice: the last one before it had hung up may have gone through.
  EXPECT_EQ(heard.front(), "0/0");
  EXPECT_EQ(std::count(heard.begin(), heard.end(), "5/0"), 1);
}

TEST_F(HungUpTest, WhatHappenedMeanwhileIsHeardOnceAndByItself) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(
      root, domain("while true; do if [ -e /out/go ]; then rm /out/go; reboot -f; fi; sleep 0.05; done"), 0));
  ::chmod((tree() + "/out").c_str(), 0777);
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  std::vector<std::string> wanted = {"0/0", "2/0"};
  for (int round = 0; round < 2; ++round) {
    HungUp others(run_file(".sock"));
    std::ofstream(tree() + "/out/go") << "x";
    ASSERT_TRUE(eventually([&] { return !fs::exists(tree() + "/out/go"); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_TRUE(others.ask(controller::FreezeRequest{true}));
    EXPECT_EQ(heard, wanted) << "nobody has told it";
    others.end();
    wanted.insert(wanted.end(), {"reboot", "3/0"});
    EXPECT_TRUE(hears(wanted)) << heard.size();
    EXPECT_EQ(state(*daemon), VIR_DOMAIN_PAUSED * 100 + VIR_DOMAIN_PAUSED_UNKNOWN);
    ASSERT_TRUE(daemon->resume(root, uuid));
    wanted.emplace_back("4/0");
    EXPECT_TRUE(hears(wanted));
  }
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
  wanted.emplace_back("5/1");
  EXPECT_EQ(heard, wanted);
  expect_nothing_left();
}

TEST_F(HungUpTest, AnEndMeanwhileIsNoCrash) {
  auto daemon = backend();
  ASSERT_TRUE(
      daemon->define(root, domain("while true; do if [ -e /out/go ]; then poweroff -f; fi; sleep 0.05; done"), 0));
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  HungUp others(run_file(".sock"));
  std::ofstream(tree() + "/out/go") << "x";
  EXPECT_TRUE(hears({"0/0", "2/0", "5/0"}));
  EXPECT_EQ(state(*daemon), kOff + VIR_DOMAIN_SHUTOFF_SHUTDOWN);
  fs::remove(run_file(".sock.away"));
  expect_nothing_left();
}

TEST_F(HungUpTest, DestroyIsNoKill) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain(kIdle), 0));
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  HungUp others(run_file(".sock"));
  ASSERT_TRUE(eventually([&] { return !daemon->suspend(root, uuid); }));
  others.end();
  testing::internal::CaptureStderr();
  const auto destroyed = daemon->destroy(root, uuid, 0);
  const auto said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(destroyed);
  EXPECT_EQ(said.find("is killed"), std::string::npos) << "the controller was asked, and did it: " << said;
  expect_nothing_left();
}

// The daemon connects to a controller that has its end to tell before it comes to any question. Whether it is heard is a
// race of the two, hence the rounds.
TEST_F(BackendTest, AnEndDuringTheRecoveryIsHeardOnce) {
  for (int round = 0; round < 8; ++round) {
    const pid_t id = orphan();
    ASSERT_GT(id, 1);
    const pid_t init = init_of(id);
    ASSERT_GT(init, 1);
    ASSERT_EQ(::kill(id, SIGSTOP), 0);
    std::thread world([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(250));
      ::kill(init, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      ::kill(id, SIGCONT);
    });
    auto daemon = backend();
    world.join();
    EXPECT_TRUE(eventually([&] { return state(*daemon) / 100 == VIR_DOMAIN_SHUTOFF; })) << state(*daemon);
    EXPECT_EQ(state(*daemon), kOff + VIR_DOMAIN_SHUTOFF_CRASHED);
    EXPECT_EQ(heard, (std::vector<std::string>{"5/2"})) << round;
    EXPECT_TRUE(eventually([&] { return fs::is_empty(paths.driver_run); }));
    heard.clear();
  }
  expect_nothing_left();
}

}  // namespace
}  // namespace virtuserns::test
