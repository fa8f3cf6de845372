#include "tools/image/detect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

namespace virtuserns::image {
namespace {

using testing::HasSubstr;

std::string tar_header() {
  std::string header(512, '\0');
  header.replace(0, 4, "file");
  header.replace(257, 5, "ustar");
  header.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  header.replace(148, 7, text, 7);
  return header;
}

std::string disk(std::string_view start) { return std::string(start) + std::string(512 - start.size(), '\0'); }

TEST(DetectImage, ByItsFirstBytes) {
  const std::pair<std::string, std::string> kCases[] = {{disk(""), "raw"},
                                                        {disk(std::string("QFI\xfb", 4)), "qcow2"},
                                                        {disk("KDMV"), "vmdk"},
                                                        {disk("vhdxfile"), "vhdx"},
                                                        {disk("conectix"), "vpc"},
                                                        {tar_header(), "root-tar"},
                                                        {"\x1f\x8b\x08", "root-tar"},
                                                        {"BZh9", "root-tar"},
                                                        {"", "raw"}};
  for (const auto& [start, format] : kCases) EXPECT_EQ(detect(start, "").value().format, format) << format;
  EXPECT_EQ(detect("\x1f\x8b\x08", "").value().compression, Compression::kGzip);
  EXPECT_EQ(detect(std::string("\xfd"
                               "7zXZ\0",
                               6),
                   "")
                .value()
                .compression,
            Compression::kXz);
  EXPECT_EQ(detect("\x28\xb5\x2f\xfd", "").value().compression, Compression::kZstd);
  EXPECT_EQ(detect("BZh9", "").value().compression, Compression::kBzip2);
}

TEST(DetectImage, ATarIsWhatHasItsChecksum) {
  auto header = tar_header();
  EXPECT_EQ(detect(header, "").value().format, "root-tar");
  header.replace(257, 5, "\0\0\0\0\0", 5);  // a mark alone is none
  EXPECT_EQ(detect(header, "").value().format, "raw");
  EXPECT_EQ(detect(tar_header().substr(0, 511), "").value().format, "raw");
}

TEST(DetectImage, WhatIsSaidHasToBeSo) {
  const auto qcow2 = disk(std::string("QFI\xfb", 4));
  for (const auto& [start, wanted] : {std::pair(qcow2, "raw"), std::pair(qcow2, "root-tar"), std::pair(qcow2, "vhd"),
                                      std::pair(tar_header(), "raw"), std::pair(tar_header(), "vhd"),
                                      std::pair(disk(""), "qcow2"), std::pair(disk(""), "root-tar")}) {
    const auto found = detect(start, wanted);
    ASSERT_FALSE(found) << wanted;
    EXPECT_THAT(found.error().text, HasSubstr(std::string("said to be ") + wanted));
  }
  EXPECT_EQ(detect(disk(""), "raw").value().format, "raw");
  EXPECT_EQ(detect(disk(""), "vhd").value().format, "vpc");  // what it is stands at its end
  EXPECT_EQ(detect(disk("conectix"), "vhd").value().format, "vpc");
  EXPECT_THAT(detect(disk(""), "iso").error().text, HasSubstr("'iso'"));
}

}  // namespace
}  // namespace virtuserns::image
