// Consoles: both ways, the log, floods, and clients that do not read.
#include <gtest/gtest.h>

#include <sys/socket.h>

#include <chrono>
#include <fstream>

#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

std::string file_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
std::chrono::nanoseconds processor_time(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/schedstat");
  long long ran_ns = 0;
  stat >> ran_ns;
  return std::chrono::nanoseconds(ran_ns);
}
long rss_kib(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::atol(line.c_str() + 6);
  return 0;
}

TEST(Console, BothWaysAndLog) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "while read line; do echo \"got <$line>\"; done"));
  ASSERT_TRUE(domain.start_ok());
  auto console = domain.console();
  ASSERT_TRUE(console) << console.error().text;
  ASSERT_EQ(::write(console->get(), "hello\n", 6), 6);
  EXPECT_NE(read_until(*console, "got <hello>").find("got <hello>"), std::string::npos);
  EXPECT_FALSE(domain.console());  // in use
  EXPECT_FALSE(domain.console(7, true));
  auto second = domain.console(0, true);
  ASSERT_TRUE(second) << second.error().text;
  char byte = 0;
  EXPECT_EQ(::read(console->get(), &byte, 1), 0);  // the first one was hung up
  ASSERT_EQ(::write(second->get(), "again\n", 6), 6);
  EXPECT_NE(read_until(*second, "got <again>").find("got <again>"), std::string::npos);
  EXPECT_NE(file_text(domain.plan().consoles[0].log_file).find("got <hello>"), std::string::npos);
}

TEST(Console, FloodWithNobodyAndWithAClientThatDoesNotRead) {
  RootTree tree;
  Domain domain(make_plan_for(
      tree,
      "head -c 6000000 /dev/zero; echo > /out/one; read go; head -c 6000000 /dev/zero; echo > /out/two; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/one"));
  const std::string log = domain.plan().consoles[0].log_file;
  EXPECT_LE(std::filesystem::file_size(log), 2u * 1024 * 1024);
  EXPECT_LE(std::filesystem::file_size(log + ".0"), 2u * 1024 * 1024);
  EXPECT_FALSE(std::filesystem::exists(log + ".1"));
  const auto console = domain.console();
  ASSERT_TRUE(console);
  ASSERT_EQ(::write(console->get(), "go\n", 3), 3);
  ASSERT_TRUE(wait_for(tree, "out/two")) << "a client that does not read stops the container";
  EXPECT_LT(rss_kib(domain.controller_pid()), 4096);
  EXPECT_TRUE(domain.status());
}

TEST(Console, AClientThatWritesToAContainerThatDoesNotRead) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "stty raw -echo; echo ready; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const auto console = domain.console();
  ASSERT_TRUE(console);
  const std::string block(65536, 'x');
  ssize_t sent = 0;
  for (int i = 0; i < 200; ++i) {
    const auto got = ::send(console->get(), block.data(), block.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (got < 0) break;
    sent += got;
  }
  EXPECT_LT(sent, 4 * 1024 * 1024);  // it is held back, not buffered
  EXPECT_TRUE(domain.status());
  EXPECT_LT(rss_kib(domain.controller_pid()), 4096);
}

TEST(Console, EverybodyClosingTheTerminalIsNoBusyLoop) {
  RootTree tree;
  Domain domain(make_plan_for(
      tree,
      "exec < /dev/null > /dev/null 2>&1; echo > /out/closed; sleep 0.3; echo back > /dev/console; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/closed"));
  const auto ran_before = processor_time(domain.controller_pid());
  const auto before = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000 && file_text(domain.plan().consoles[0].log_file).find("back") == std::string::npos; ++i)
    ::usleep(5000);
  EXPECT_NE(file_text(domain.plan().consoles[0].log_file).find("back"), std::string::npos);
  // A loop would take all of it; on an emulated processor also the little that there is to do takes a while.
  EXPECT_LT(processor_time(domain.controller_pid()) - ran_before, (std::chrono::steady_clock::now() - before) / 2);
}

}  // namespace
}  // namespace virtuserns::test
