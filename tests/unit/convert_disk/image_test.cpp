#include "tools/convert/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/controller/qcow2.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/convert_disk/disk_bytes.h"
#include "tools/convert/source.h"

namespace virtuserns::convert {
namespace {

using testing::HasSubstr;

void write(const std::string& path, const std::string& text) { ASSERT_TRUE(write_atomic(path, text)); }

// A qcow2 as qemu-img made it, with another backing file.
std::string overlay_on(const std::string& backing) {
  auto text = corpus("disk_image/o.qcow2");
  const auto at = static_cast<std::size_t>(__builtin_bswap64(le64(text, 8)));
  text.replace(at, backing.size(), backing);
  put(text, 16, __builtin_bswap32(static_cast<std::uint32_t>(backing.size())), 4);
  return text;
}

std::string refusal(const std::string& path, const std::string& format = "", std::vector<std::string> folders = {}) {
  const auto chain = read_chain(path, format, folders);
  return chain ? "" : chain.error().text;
}

TEST(Image, ReadsWhatQemuWrites) {
  auto header = controller::parse_qcow2_header(corpus("disk_image/o.qcow2"));
  ASSERT_TRUE(header) << header.error().text;
  EXPECT_EQ(header->backing, "b.qcow2");
  EXPECT_EQ(header->backing_format, "qcow2");
  header = controller::parse_qcow2_header(corpus("disk_image/v2.qcow2"));
  ASSERT_TRUE(header) << header.error().text;
  EXPECT_EQ(header->backing, "");
  EXPECT_TRUE(check_vmdk_header(corpus("disk_image/x.vmdk")));
  EXPECT_FALSE(check_vmdk_header(corpus("disk_image/xf.vmdk")));
  EXPECT_EQ(guess_format(corpus("disk_image/xf.vmdk")), "vmdk");
}

TEST(Image, FollowsAChainInItsFolder) {
  const test::TempDir dir;
  write(dir.path() + "/o.qcow2", overlay_on("b.qcow2"));
  write(dir.path() + "/b.qcow2", corpus("disk_image/b.qcow2"));
  const auto chain = read_chain(dir.path() + "/o.qcow2", "", {});
  ASSERT_TRUE(chain) << chain.error().text;
  ASSERT_EQ(chain->size(), 2u);
  EXPECT_EQ((*chain)[1].path, dir.path() + "/b.qcow2");
  EXPECT_TRUE(check_unchanged((*chain)[1]));
  write(dir.path() + "/b.qcow2", corpus("disk_image/b.qcow2"));
  EXPECT_FALSE(check_unchanged((*chain)[1]));
}

TEST(Image, ABackingFileIsNoWayOut) {
  const test::TempDir dir, other;
  const auto path = dir.path() + "/o.qcow2";
  for (const auto* backing : {"/etc/shadow", "../../../etc/shadow", "/proc/self/environ"}) {
    write(path, overlay_on(backing));
    EXPECT_THAT(refusal(path), HasSubstr("not in the folder of the disk")) << backing;
  }
  for (const auto* backing : {"json:{\"file.filename\":\"/etc/shadow\"}", "nbd:host:10809", "ssh://host/x"}) {
    write(path, overlay_on(backing));
    EXPECT_THAT(refusal(path), HasSubstr("no file of this machine")) << backing;
  }
  ASSERT_EQ(::symlink("/etc/passwd", (dir.path() + "/link").c_str()), 0);
  write(path, overlay_on("link"));
  EXPECT_THAT(refusal(path), HasSubstr("'/etc/passwd'"));
  write(path, overlay_on("/dev/zero"));
  EXPECT_THAT(refusal(path, "", {"/dev"}), HasSubstr("neither a file nor a block device"));
  write(path, overlay_on("o.qcow2"));
  EXPECT_THAT(refusal(path), HasSubstr("on itself"));
}

TEST(Image, AFormatIsWrittenDown) {
  const test::TempDir dir;
  auto text = overlay_on("b.qcow2");
  const auto at = text.find("\xe2\x79\x2a\xca");
  ASSERT_NE(at, std::string::npos);
  put(text, at, 0x11111111, 4);
  write(dir.path() + "/o.qcow2", text);
  EXPECT_THAT(refusal(dir.path() + "/o.qcow2"), HasSubstr("no format written down"));
}

TEST(Image, RefusesHeadersThatLie) {
  const test::TempDir dir;
  const auto path = dir.path() + "/x.qcow2", good = corpus("disk_image/o.qcow2");
  auto text = good;
  put(text, 8, ~0ull, 8);
  write(path, text);
  EXPECT_THAT(refusal(path), HasSubstr("its backing file is not within it"));
  text = good;
  text[79] = 4;
  write(path, text);
  EXPECT_THAT(refusal(path), HasSubstr("data is in another file"));
  text = good;
  text[7] = 9;
  write(path, text);
  EXPECT_THAT(refusal(path), HasSubstr("version 9"));
  write(path, good.substr(0, 80));
  EXPECT_THAT(refusal(path), HasSubstr("cut short"));
  write(path, "plain");
  EXPECT_THAT(refusal(path, "qcow2"), HasSubstr("said to be qcow2 and is not"));
  EXPECT_THAT(refusal(path, "ssh"), HasSubstr("none that can be read here"));
}

// The guest of a raw disk writes its first bytes.
TEST(Image, AHeaderThatNobodyHasVouchedForLeadsNowhere) {
  const test::TempDir dir;
  const auto path = dir.path() + "/mine.img";
  write(path, overlay_on("b.qcow2"));
  write(dir.path() + "/b.qcow2", corpus("disk_image/b.qcow2"));
  SourceOptions options;
  const auto refused = read_source(path, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("say --format qcow2"));
  for (const auto* format : {"qcow2", "raw"}) {
    options.format = format;
    const auto source = read_source(path, options);
    ASSERT_TRUE(source) << source.error().text;
    EXPECT_EQ(source->disks.front().chain.size(), options.format == "raw" ? 1u : 2u);
  }
}

TEST(Image, WhatIsSaidToBeRawIsRaw) {
  const test::TempDir dir;
  const auto path = dir.path() + "/disk";
  write(path, overlay_on("/etc/shadow"));
  const auto chain = read_chain(path, "raw", {});
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->size(), 1u);
}

}  // namespace
}  // namespace virtuserns::convert
