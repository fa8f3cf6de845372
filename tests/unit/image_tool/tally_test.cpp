#include "tools/image/tally.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace virtuserns::image {
namespace {

TEST(TallyOfAnArchive, IsSaidAndUnderstood) {
  Tally tally;
  tally.entries = 7, tally.bytes = 1u << 30;
  for (int i = 0; i < 5; ++i) tally.leave_out("device node", "dev/" + std::to_string(i));
  tally.leave_out("attribute 'trusted.x'", "a\x1b[1m");
  const auto report = Tally::decode(tally.encode());
  ASSERT_TRUE(report) << report.error().text;
  EXPECT_EQ(report->entries, 7u);
  EXPECT_EQ(report->bytes, 1u << 30);
  ASSERT_EQ(report->findings.size(), 2u);
  EXPECT_EQ(report->findings[0].object, "attribute 'trusted.x'");
  EXPECT_EQ(report->findings[0].text, "1 left out: a\\x1b[1m");
  EXPECT_EQ(report->findings[1].object, "device node");
  EXPECT_EQ(report->findings[1].text, "5 left out: dev/0, dev/1, dev/2");
}

TEST(TallyOfAnArchive, IsBoundedWhateverTheArchiveSays) {
  Tally tally;
  for (int i = 0; i < 1000; ++i)
    tally.leave_out("attribute '" + std::to_string(i) + std::string(60'000, 'x') + "'", "a");
  const auto said = tally.encode();
  EXPECT_LT(said.size(), 64u * 1024);
  const auto report = Tally::decode(said);
  ASSERT_TRUE(report);
  EXPECT_LE(report->findings.size(), 64u);
}

TEST(TallyOfAnArchive, ALiarIsNoAnswer) {
  const auto good = Tally().encode();
  EXPECT_TRUE(Tally::decode(good));
  EXPECT_FALSE(Tally::decode(good + "more"));
  EXPECT_FALSE(Tally::decode(good.substr(0, good.size() - 1)));
  EXPECT_FALSE(Tally::decode(std::string(good.size(), '\xff')));
}

}  // namespace
}  // namespace virtuserns::image
