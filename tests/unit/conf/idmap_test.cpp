#include "conf/idmap.h"

#include <gtest/gtest.h>

#include <random>

#include "conf/validate.h"

namespace virtuserns {
namespace {

using Entries = std::vector<IdMapEntry>;
constexpr std::uint32_t kMax = 4294967295U;

std::string verdict(Entries uid, Entries gid) {
  const auto result = validate_idmap({std::move(uid), std::move(gid)});
  return result ? "accepted" : result.error().text;
}
std::string verdict(const Entries& both) { return verdict(both, both); }

Entries many(std::uint32_t count) {
  Entries entries;
  for (std::uint32_t i = 0; i < count; ++i) entries.push_back({i, 100000 + 2 * i, 1});
  return entries;
}

TEST(ValidateIdmap, NamesTheEntryAndTheRemedy) {
  const Entries plain = {{0, 2000000, 65536}};
  EXPECT_EQ(verdict({}), "accepted");
  EXPECT_EQ(verdict(plain), "accepted");
  EXPECT_EQ(verdict({{0, std::nullopt, 65536}}), "accepted");
  EXPECT_EQ(verdict(many(340)), "accepted");
  EXPECT_EQ(verdict({{0, 1, kMax - 1}}), "accepted");
  EXPECT_EQ(verdict({{1000, 1000, 1}, {0, 2000000, 1000}, {1001, 2001001, 10}}), "accepted");
  const std::pair<Entries, std::string> cases[] = {
      {{{0, 2000000, 0}}, "idmap: <uid start='0' target='2000000' count='0'/> maps nothing: count must be above 0"},
      {{{0, 2000000, 10}, {5, 3000000, 10}},
       "idmap: <uid start='0' target='2000000' count='10'/> and <uid start='5' target='3000000' count='10'/> "
       "overlap: an id "
       "inside can be mapped only once"},
      {{{10, 2000000, 10}, {0, 2000009, 10}},
       "idmap: <uid start='10' target='2000000' count='10'/> and <uid start='0' target='2000009' count='10'/> "
       "overlap on the "
       "host: a host id can stand for only one id inside"},
      {{{0, 2000000, kMax}, {kMax, 1, 2}},
       "idmap: <uid start='0' target='2000000' count='4294967295'/> passes the last host id: target + count must not "
       "be above "
       "4294967296"},
      {{{0, 1, 1}, {kMax, 2000000, 2}},
       "idmap: <uid start='4294967295' target='2000000' count='2'/> passes the last id: start + count must not be "
       "above "
       "4294967296"},
      {{{0, 1, 1}, {kMax, 2000000, 1}},
       "idmap: <uid start='4294967295' target='2000000' count='1'/> maps id 4294967295, which the kernel reserves: "
       "lower count "
       "by one"},
      {{{0, kMax, 1}},
       "idmap: <uid start='0' target='4294967295' count='1'/> maps to host id 4294967295, which the kernel reserves: "
       "lower "
       "count by one"},
      {many(341), "idmap: 341 <uid> entries are more than the kernel takes: at most 340"},
      {{{1, 2000000, 10}}, "idmap: no <uid> entry has start='0': the root of the container must be mapped"},
      {{{0, 0, 65536}},
       "idmap: <uid start='0' target='0' count='65536'/> maps to host id 0, which is root of the host: choose a "
       "target above 0, "
       "or leave target out"},
      {{{0, 2000000, 10}, {10, std::nullopt, 10}},
       "idmap: some <uid> entries have a target and some have none: give it to all, or to none for an automatic "
       "range"},
  };
  for (const auto& [entries, expected] : cases) EXPECT_EQ(verdict(entries, plain), expected);
  EXPECT_EQ(verdict(plain, {}), "idmap: there are <uid> entries but no <gid> entry: both must be mapped");
  EXPECT_EQ(verdict({}, plain), "idmap: there are <gid> entries but no <uid> entry: both must be mapped");
  EXPECT_EQ(verdict(plain, {{0, 5, 0}}),
            "idmap: <gid start='0' target='5' count='0'/> maps nothing: count must be above 0");
  EXPECT_EQ(verdict(plain, {{0, std::nullopt, 65536}}),
            "idmap: only one of <uid> and <gid> has targets: give them to both, or to none for an automatic range");
}

TEST(Idmap, TranslatesBothWays) {
  const IdMapLines lines = {{0, 2000000, 1000}, {1000, 1000, 1}, {1001, 2001001, 5}};
  EXPECT_EQ(to_host(lines, 0), 2000000u);
  EXPECT_EQ(to_host(lines, 999), 2000999u);
  EXPECT_EQ(to_host(lines, 1000), 1000u);
  EXPECT_EQ(to_host(lines, 1005), 2001005u);
  EXPECT_EQ(to_host(lines, 1006), std::nullopt);
  EXPECT_EQ(to_inside(lines, 1000), 1000u);
  EXPECT_EQ(to_inside(lines, 2000005), 5u);
  EXPECT_EQ(to_inside(lines, 0), std::nullopt);
  EXPECT_EQ(to_host({{0, 1, kMax}}, kMax - 1), kMax);
  // devpts' group on the edges of a line (libvirt compares with '>' and misses the first id)
  EXPECT_EQ(to_host({{5, 100, 1}}, 5), 100u);
}

TEST(Idmap, KernelTextComesBack) {
  const IdMapLines lines = {{0, 2000000, 1000}, {1000, 1000, 1}};
  EXPECT_EQ(format_kernel_map(lines), "0 2000000 1000\n1000 1000 1\n");
  EXPECT_EQ(*parse_kernel_map("         0    2000000       1000\n      1000       1000          1\n"), lines);
  EXPECT_EQ(parse_kernel_map("0 1\n").error().text, "id map line '0 1' has not three numbers");
  EXPECT_FALSE(parse_kernel_map("0 1 x\n"));
  EXPECT_FALSE(parse_kernel_map("0 1 4294967296\n"));
  EXPECT_TRUE(parse_kernel_map("")->empty());
}

TEST(Idmap, TheKernelsRules) {
  EXPECT_EQ(refuse_kernel_map({{0, 1, 1}}), std::nullopt);
  EXPECT_EQ(refuse_kernel_map({{0, 0, 1}}),
            std::nullopt);  // the kernel maps host root gladly; validate_idmap does not
  EXPECT_EQ(refuse_kernel_map({}), "the map has no line");
  EXPECT_EQ(refuse_kernel_map({{0, 1, 0}}), "line '0 1 0' has count 0");
  EXPECT_EQ(refuse_kernel_map({{0, 1, kMax}}), "line '0 1 4294967295' passes the last id outside");
  EXPECT_EQ(refuse_kernel_map({{1, 0, kMax}}), "line '1 0 4294967295' passes the last id inside");
  EXPECT_EQ(refuse_kernel_map({{0, 0, kMax}}), std::nullopt);
  EXPECT_EQ(refuse_kernel_map({{0, 10, 5}, {4, 20, 5}}), "lines '0 10 5' and '4 20 5' overlap inside");
  EXPECT_EQ(refuse_kernel_map({{0, 10, 5}, {5, 14, 5}}), "lines '0 10 5' and '5 14 5' overlap outside");
}

// What a definition may say, the kernel takes: no map is accepted at define and refused at start.
TEST(Idmap, AcceptedDefinitionsAreAcceptedMaps) {
  std::mt19937 random(20140601);
  const std::uint32_t kInteresting[] = {0, 1, 2, 5, 999, 1000, 65535, 65536, 2000000, kMax - 1, kMax};
  const auto pick = [&] {
    return random() % 3 == 0 ? static_cast<std::uint32_t>(random())
                             : kInteresting[random() % std::size(kInteresting)];
  };
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    IdMapDef def;
    IdMapLines lines;
    for (std::size_t n = 1 + random() % 4; n > 0; --n) {
      const IdMapLine line{lines.empty() ? 0 : pick(), pick(), pick()};
      lines.push_back(line);
      def.uid.push_back({line.inside, line.outside, line.count});
    }
    def.gid = def.uid;
    if (!validate_idmap(def)) continue;
    ++accepted;
    EXPECT_EQ(refuse_kernel_map(lines), std::nullopt) << format_kernel_map(lines);
  }
  EXPECT_GT(accepted, 500);
}

}  // namespace
}  // namespace virtuserns
