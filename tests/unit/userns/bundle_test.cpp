#include "driver/controller/bundle.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "tests/support/temp_dir.h"

namespace virtuserns::controller {
namespace {

class BundleTest : public testing::Test {
 protected:
  [[nodiscard]] Fd make() const { return Fd(::open(path().c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)); }
  [[nodiscard]] std::string path() const { return dir_.path() + "/bundle.tar"; }
  [[nodiscard]] std::string tar(const std::string& words) const {
    const auto said = dir_.path() + "/said";
    EXPECT_EQ(std::system(("tar " + words + " " + path() + " >" + said + " 2>&1").c_str()), 0);
    std::ostringstream text;
    text << std::ifstream(said).rdbuf();
    return text.str();
  }
  test::TempDir dir_;
};

TEST_F(BundleTest, TarReadsIt) {
  const Fd output = make();
  Bundle bundle(output, 1 << 20, 1700000000);
  EXPECT_TRUE(bundle.add("one", "first\n").value());
  EXPECT_TRUE(bundle.add("a/folder/empty", "").value());
  EXPECT_TRUE(bundle.add(std::string(99, 'n'), std::string(512, '\0')).value());
  ASSERT_TRUE(bundle.finish("last", std::string("\xff\n")));
  EXPECT_EQ(tar("-tf"), "one\na/folder/empty\n" + std::string(99, 'n') + "\nlast\n");
  EXPECT_EQ(tar("-xO one -f"), "first\n");
  EXPECT_EQ(tar("-xO last -f"), "\xff\n");
  const auto listed = tar("--utc --numeric-owner -tvf");
  EXPECT_EQ(listed.find("-rw------- 0/0 "), 0U) << listed;
  EXPECT_NE(listed.find(" 6 2023-11-14 22:13 one\n"), std::string::npos) << listed;
}

TEST_F(BundleTest, WhatDoesNotFitIsLeftOutAndTheLastFileIsNot) {
  const Fd output = make();
  Bundle bundle(output, 4096, 0);
  EXPECT_TRUE(bundle.add("fits", std::string(1024, 'x')).value());
  EXPECT_FALSE(bundle.is_full());
  EXPECT_FALSE(bundle.add("does not", std::string(2049, 'x')).value());
  EXPECT_TRUE(bundle.is_full());
  EXPECT_FALSE(bundle.add("neither does what comes later", "x").value());
  ASSERT_TRUE(bundle.finish("MANIFEST", std::string(4096, 'm')));
  EXPECT_EQ(tar("-tf"), "fits\nMANIFEST\n");
}

TEST_F(BundleTest, NamesThatNoTarHas) {
  const Fd output = make();
  Bundle bundle(output, 4096, 0);
  EXPECT_FALSE(bundle.add("", "x"));
  EXPECT_FALSE(bundle.add(std::string(100, 'n'), "x"));
}

TEST_F(BundleTest, ADiskThatIsFull) {
  const Fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  Bundle bundle(full, 4096, 0);
  const auto added = bundle.add("one", "x");
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().sys_errno, ENOSPC);
}

}  // namespace
}  // namespace virtuserns::controller
