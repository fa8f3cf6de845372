#include "conf/idpool.h"

#include <gtest/gtest.h>

#include <random>

using namespace virtuserns;

namespace {

const Uuid kWeb{{1}}, kDb{{2}};
const IdPool kPool{2'000'000, 4'000'000'000, 65'536};

DomainDef domain(const Uuid& uuid, std::vector<IdMapEntry> uid = {}, std::vector<IdMapEntry> gid = {}) {
  DomainDef def;
  def.uuid = uuid;
  def.idmap = {std::move(uid), std::move(gid)};
  return def;
}

TEST(Subid, KeepsUsableLinesWithTheirNumbers) {
  const auto file = parse_subid("# users\nanna:100000:65536\n\n elsa:165536:65536 \n1000:300000:1\n");
  ASSERT_EQ(file.lines.size(), 3u);
  EXPECT_EQ(file.lines[0], (SubidLine{2, "anna", {100'000, 65'536}}));
  EXPECT_EQ(file.lines[1], (SubidLine{4, "elsa", {165'536, 65'536}}));
  EXPECT_EQ(file.lines[2].owner, "1000");
  EXPECT_EQ(file.skipped, 0u);
}

TEST(Subid, SkipsWhatSaysNothingUsable) {
  const auto file = parse_subid(
      "anna:1:0\nanna:x:1\n:1:1\nanna:4294967295:2\nanna:1:2:3\nanna:-1:2\nanna:18446744073709551615:9\nlast:4294967290:6");
  ASSERT_EQ(file.lines.size(), 1u);
  EXPECT_EQ(file.lines[0].owner, "last");
  EXPECT_EQ(file.skipped, 7u);
}

TEST(Accounts, ReadsTheThirdField) {
  const auto accounts = parse_accounts(
      "root:x:0:0:root:/root:/bin/sh\n+nis\nbroken\nanna:x:1000:1000::/:/bin/sh\ng:x:7:a,b\nx:y:z:\nlast:x:9");
  ASSERT_EQ(accounts.size(), 4u);
  EXPECT_EQ(accounts[1].name, "anna");
  EXPECT_EQ(accounts[1].id, 1000u);
  EXPECT_EQ(accounts[1].number, 4u);
  EXPECT_EQ(accounts[3].id, 9u);
}

TEST(ChooseRange, TakesTheLowestFreeSlotAndKeepsTheAlignment) {
  EXPECT_EQ(choose_range(kPool, 65'536, {}), 2'000'000u);
  EXPECT_EQ(choose_range(kPool, 65'536, {{2'000'000, 65'536}}), 2'065'536u);
  EXPECT_EQ(choose_range(kPool, 65'536, {{2'065'536, 65'536}}), 2'000'000u);
  EXPECT_EQ(choose_range(kPool, 65'536, {{2'000'100, 1}}), 2'065'536u);        // one account costs one slot
  EXPECT_EQ(choose_range(kPool, 200'000, {{2'065'536, 65'536}}), 2'131'072u);  // needs more than the gap
  EXPECT_EQ(choose_range(kPool, 65'536, {{0, 1ULL << 32}}), std::nullopt);
}

TEST(ChooseRange, NeverLeavesThePoolNorTheIdsThereAre) {
  EXPECT_EQ(choose_range({0, 65'536 + 9, 10}, 10, {}), 65'536u);  // never below the system's ids
  EXPECT_EQ(choose_range({70'000, 70'008, 10}, 10, {}), std::nullopt);
  EXPECT_EQ(choose_range({4'294'967'290, 4'294'967'295, 5}, 5, {}), 4'294'967'290u);
  EXPECT_EQ(choose_range({4'294'967'291, 4'294'967'295, 5}, 5, {}), std::nullopt);  // 2^32 - 1 is no id
  EXPECT_EQ(choose_range(kPool, 0, {}), std::nullopt);
}

TEST(ChooseMaps, AutomaticRangeAvoidsEveryClaimOfBothKinds) {
  IdClaims claims;
  claims.uid.push_back({{2'000'000, 1}, "account", std::nullopt});
  claims.gid.push_back({{2'065'536, 65'536}, "domain 'db'", kDb});
  const auto maps = choose_maps(domain(kWeb), kPool, claims);
  ASSERT_TRUE(maps);
  EXPECT_EQ(maps->uid, (IdMapLines{{0, 2'131'072, 65'536}}));
  EXPECT_EQ(maps->gid, maps->uid);
}

TEST(ChooseMaps, CompletesLinesWithoutTargetAndHonoursTheCount) {
  const auto maps = choose_maps(domain(kWeb, {{0, std::nullopt, 1000}, {1000, 2'000'500, 1}}, {}), kPool, {});
  ASSERT_TRUE(maps);
  EXPECT_EQ(maps->uid, (IdMapLines{{0, 2'065'536, 1000}, {1000, 2'000'500, 1}}));
  EXPECT_EQ(maps->gid.size(), 1u);
  auto def = domain(kDb);
  def.userns.id_count = 131'072;
  const auto big = choose_maps(def, kPool, {});
  ASSERT_TRUE(big);
  EXPECT_EQ(big->uid[0].count, 131'072u);
}

// Of a group: in nobody's way in it, in everybody's outside, whether a domain or only the group holds it.
TEST(CheckTargets, AGroupsRangeIsItsDomainsToName) {
  IdClaims claims;
  claims.uid.push_back({{3'000'000, 65'536}, "domain 'db' of group 'shop'", kDb, "shop"});
  claims.uid.push_back({{5'000'000, 65'536}, "group 'shop' (domain 'db')", std::nullopt, "shop"});
  const auto refused = [&](std::uint32_t target, const std::string& group) -> std::string {
    const TargetRules rules{{{1'000'000, 9'000'000}}, {}, false, "you", ""};  // a delegation is no excuse
    const auto result = check_targets(domain(kWeb, {{0, target, 65'536}}).idmap, claims, rules, {kWeb, group});
    return result ? "" : result.error().text;
  };
  for (const std::uint32_t target : {3'000'000u, 5'000'000u, 3'000'001u}) {
    EXPECT_EQ(refused(target, "shop"), "") << target;
    EXPECT_NE(refused(target, "").find("group 'shop'"), std::string::npos) << refused(target, "");
    EXPECT_NE(refused(target, "sho").find("group 'shop'"), std::string::npos) << refused(target, "sho");
  }
  const auto maps = choose_maps(domain(kDb), {3'000'000, 9'000'000, 65'536}, claims);
  ASSERT_TRUE(maps);
  EXPECT_EQ(maps->uid[0].outside, 3'065'536u) << "what a domain has as one of a group is not its own to take along";
}

TEST(CheckTargets, NamesTheLineAndTheOwner) {
  IdClaims claims;
  claims.uid.push_back({{100'000, 65'536}, "user 'anna' (line 1 of /etc/subuid)", std::nullopt});
  claims.uid.push_back({{3'000'000, 65'536}, "domain 'db'", kDb});
  claims.uid.push_back({{1000, 1}, "account 'anna' (line 2 of /etc/passwd)", std::nullopt});
  const auto refused = [&](std::uint32_t target, std::uint32_t count, TargetRules rules = {}) -> std::string {
    const auto result = check_targets(domain(kWeb, {{0, target, count}}).idmap, claims, rules, kWeb);
    return result ? "" : result.error().text;
  };
  EXPECT_EQ(refused(5'000'000, 65'536), "");
  EXPECT_EQ(
      refused(150'000, 10),
      "idmap line <uid start='0' target='150000' count='10'/> overlaps host ids 100000-165535 of user 'anna' (line 1 of /etc/subuid)");
  EXPECT_NE(refused(2'999'999, 2).find("domain 'db'"), std::string::npos);
  EXPECT_NE(refused(0, 65'536).find("host uid 0"), std::string::npos);
  EXPECT_NE(refused(500, 1).find("below 65536"), std::string::npos);
  EXPECT_NE(refused(1000, 1).find("account 'anna'"), std::string::npos);
  // What the administrator delegated to root is allowed, host root and other domains' ids never are.
  TargetRules granted;
  granted.granted_uid = {{0, 100'000}, {3'000'000, 65'536}};
  EXPECT_EQ(refused(1000, 1, granted), "");
  EXPECT_NE(refused(0, 1, granted), "");
  EXPECT_NE(refused(3'000'000, 1, granted), "");
  // An owner is not told of domains that are not the owner's.
  TargetRules owner{{{3'000'000, 65'536}}, {}, true, "user 'anna'", "anna"};
  const auto domains = [&](std::uint32_t target) {
    IdClaims held;
    held.uid.push_back({{2'500'000, 65'536}, "domain 'secret'", kDb});
    held.uid.push_back({{3'000'000, 65'536}, "domain 'two'", kDb});
    const auto result = check_targets(domain(kWeb, {{0, target, 65'536}}).idmap, held, owner, kWeb);
    return result ? std::string() : result.error().text;
  };
  EXPECT_EQ(
      domains(2'500'000),
      "idmap line <uid start='0' target='2500000' count='65536'/> is not delegated to user 'anna' in /etc/subuid; "
      "a line 'anna:2500000:65536' there would do it");
  EXPECT_NE(domains(3'000'000).find("domain 'two'"), std::string::npos);
  TargetRules session;
  session.must_be_granted = true;
  EXPECT_NE(refused(5'000'000, 1, session).find("not delegated"), std::string::npos);
}

// F45: any interleaving of define, lease, release never yields overlap.
TEST(Property, AnyInterleavingOfLeaseAndReleaseStaysDisjoint) {
  std::mt19937 random(7);
  const IdPool pool{2'000'000, 2'000'000 + 65'536 * 24, 65'536};
  std::map<Uuid, IdMaps> held;
  for (int step = 0; step < 4000; ++step) {
    const Uuid uuid{{static_cast<std::uint8_t>(random() % 20 + 1)}};
    if (random() % 3 == 0) {
      held.erase(uuid);
      continue;
    }
    IdClaims claims;
    for (const auto& [owner, maps] : held) {
      for (const auto& line : maps.uid) claims.uid.push_back({{line.outside, line.count}, "domain", owner});
      for (const auto& line : maps.gid) claims.gid.push_back({{line.outside, line.count}, "domain", owner});
    }
    auto def = domain(uuid);
    if (random() % 4 == 0) def.userns.id_count = static_cast<std::uint32_t>(random() % 200'000 + 1);
    if (random() % 5 == 0) def.idmap.uid = {{0, std::nullopt, 10}, {10, std::nullopt, 90}};
    const auto maps = choose_maps(def, pool, claims);
    if (!maps) continue;  // used up
    held[uuid] = *maps;
    for (const auto& [a, x] : held)
      for (const auto& [b, y] : held)
        for (const auto& p : x.uid)
          for (const auto& q : y.uid)
            ASSERT_TRUE((a == b && p == q) || a == b ||
                        !(IdRange{p.outside, p.count}.overlaps({q.outside, q.count})));
    for (const auto& line : held[uuid].uid) {
      ASSERT_GE(line.outside, pool.first);
      ASSERT_LE(line.outside + std::uint64_t{line.count} - 1, pool.last);
    }
  }
}

}  // namespace
