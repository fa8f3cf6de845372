// What a command that is to run in a domain may ask for.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "conf/base/fd.h"
#include "conf/exec.h"

namespace virtuserns {
namespace {

ExecDef make_exec() {
  ExecDef def;
  def.arguments.push_back(std::string("ls"));
  def.environment.push_back(std::string("A=b"));
  def.user = std::string("web");
  def.directory = std::string("/tmp");
  return def;
}

template <class Change>
std::string refused(const Change& change) {
  ExecDef def = make_exec();
  change(def);
  const auto valid = validate_exec(def);
  return valid ? std::string() : valid.error().text;
}

TEST(ExecDef, RoundTrips) {
  ExecDef def = make_exec();
  def.has_terminal = true;
  def.rows = 24;
  const auto back = xdr::decode_exact<ExecDef>(xdr::encode(def));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_TRUE(validate_exec(*back));
  EXPECT_EQ(back->arguments.at(0), "ls");
  EXPECT_EQ(back->user, "web");
  EXPECT_TRUE(back->has_terminal);
  EXPECT_EQ(back->rows, 24u);
}

TEST(ExecDef, RefusesWhatCannotBeMeant) {
  EXPECT_EQ(refused([](ExecDef&) {}), "");
  EXPECT_NE(refused([](ExecDef& d) { d.arguments.clear(); }).find("no command"), std::string::npos);
  EXPECT_NE(refused([](ExecDef& d) { d.arguments[0].clear(); }).find("no command"), std::string::npos);
  EXPECT_NE(refused([](ExecDef& d) { d.environment[0] = std::string("A"); }).find("NAME=VALUE"), std::string::npos);
  EXPECT_NE(refused([](ExecDef& d) { d.environment[0] = std::string("=b"); }).find("NAME=VALUE"), std::string::npos);
  EXPECT_NE(refused([](ExecDef& d) { d.directory = std::string("tmp"); }).find("absolute"), std::string::npos);
  EXPECT_NE(refused([](ExecDef& d) { d.user = std::string("a:b"); }).find("no name"), std::string::npos);
  EXPECT_NE(refused([](ExecDef& d) { d.group = std::string("a\nb"); }).find("no name"), std::string::npos);
  EXPECT_NE(refused([](ExecDef& d) { d.rows = 70'000; }).find("terminal"), std::string::npos);
}

TEST(ExecDef, SizesAreBounded) {
  EXPECT_NE(refused([](ExecDef& d) {
              for (int i = 0; i < 4; ++i) d.arguments.push_back(std::string(60'000, 'x'));
            }).find("192 KiB"),
            std::string::npos);
  // By the decoder already, before memory is taken.
  const auto undecodable = [](auto&& change) {
    ExecDef def = make_exec();
    change(def);
    return !xdr::decode_exact<ExecDef>(xdr::encode(def));
  };
  EXPECT_TRUE(undecodable([](ExecDef& d) {
    for (int i = 0; i < 1024; ++i) d.arguments.push_back(std::string("x"));
  }));
  EXPECT_TRUE(undecodable([](ExecDef& d) { d.arguments.push_back(std::string(kMaxExecText + 1, 'x')); }));
  EXPECT_TRUE(undecodable([](ExecDef& d) { d.user = std::string(257, 'x'); }));
  EXPECT_TRUE(undecodable([](ExecDef& d) { d.directory = std::string(4097, '/'); }));
  EXPECT_TRUE(undecodable([](ExecDef& d) { d.arguments.push_back(std::string("a\0b", 3)); }));
}

TEST(ExecDef, EveryPrefixIsRefused) {
  const auto bytes = xdr::encode(make_exec());
  for (std::size_t size = 0; size < bytes.size(); size += 4)
    EXPECT_FALSE(xdr::decode_exact<ExecDef>(std::span(bytes).first(size))) << size;
}

TEST(ExecDef, StatusOfAFailedExec) {
  EXPECT_EQ(exec_status_of(ENOENT), 127);
  EXPECT_EQ(exec_status_of(EACCES), 126);
  EXPECT_EQ(exec_status_of(ENOEXEC), 126);
}

TEST(ExecProgram, IsSealedMemoryThatNobodyMayWrite) {
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  const auto is_taken = [](int seals, mode_t mode) {
    const Fd memory(::memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::fchmod(memory.get(), mode), 0);
    EXPECT_EQ(::fcntl(memory.get(), F_ADD_SEALS, seals), 0);
    return static_cast<bool>(validate_program(memory.get()));
  };
  EXPECT_TRUE(is_taken(kSeals, 0555));
  for (const int missing : {F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL})
    EXPECT_FALSE(is_taken(kSeals & ~missing, 0555)) << missing;
  for (const mode_t mode : {04555u, 02555u, 0575u, 0557u}) EXPECT_FALSE(is_taken(kSeals, mode)) << mode;
  EXPECT_FALSE(validate_program(0));
  EXPECT_FALSE(validate_program(-1));
}

}  // namespace
}  // namespace virtuserns
