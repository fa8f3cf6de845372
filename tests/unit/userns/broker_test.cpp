// Ranges that several domains share.
#include "driver/userns/broker.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "conf/base/file.h"
#include "conf/validate.h"
#include "tests/support/temp_dir.h"
#include "xml/metadata.h"
#include "xml/nova.h"

namespace virtuserns::userns {
namespace {

const std::string kProject = "0123456789abcdef0123456789abcdef";

struct Broker : testing::Test {
  test::TempDir dir;
  DaemonConfig config;
  Paths paths;
  std::optional<RangeBroker> broker;

  void SetUp() override {
    paths.state = dir.path() + "/state";
    paths.proc = dir.path() + "/proc";  // of a machine where nothing runs
    for (auto* file : {&paths.subuid, &paths.subgid, &paths.passwd, &paths.group}) *file = dir.path() + "/none";
    std::filesystem::create_directory(paths.proc);
    open();
    broker->collect({});
  }
  void open(const std::vector<Uuid>& live = {}) {
    broker.reset();
    broker.emplace(config, paths);
    const auto problems = broker->open(live, false);
    ASSERT_TRUE(problems) << problems.error().text;
    EXPECT_TRUE(problems->empty());
  }
  // As the daemon does it: definitions are loaded one by one, then what belongs to nobody goes.
  void restart(const std::vector<DomainDef>& known) {
    open();
    std::vector<Uuid> uuids;
    for (const auto& def : known) {
      broker->restore(def);
      uuids.push_back(def.uuid);
    }
    broker->collect(uuids);
  }
  bool has_file(const std::string& group) {
    return ::access((paths.state + "/leases/group-" + group).c_str(), F_OK) == 0;
  }
  // The first host id; 0 after an error, which is in `error`.
  std::uint32_t start(const DomainDef& def) {
    const auto maps = broker->lease(def);
    error = maps ? "" : maps.error().text;
    EXPECT_TRUE(!maps || (maps->uid.size() == 1 && maps->uid == maps->gid));
    return maps ? maps->uid[0].outside : 0;
  }
  std::string define(const DomainDef& def) {
    const auto claimed = broker->claim(def);
    if (claimed) broker->restore(def);  // that it is stored
    return claimed ? "" : claimed.error().text;
  }
  std::string error;
};

DomainDef domain(std::uint8_t number, const std::string& group = "") {
  DomainDef def;
  def.uuid = Uuid{{number, 1}};
  def.name = "d" + std::to_string(number);
  def.userns.id_group = group;
  return def;
}
DomainDef with_map(DomainDef def, std::uint32_t target) {
  def.idmap.uid = def.idmap.gid = {{0, target, 65'536}};
  return def;
}
DomainDef of_nova(DomainDef def, const std::string& project = kProject) {
  EXPECT_TRUE(xml::set_metadata(def, "<instance><owner><project uuid='" + project + "'/></owner></instance>", "nova",
                                xml::kNovaUri));
  return def;
}

TEST_F(Broker, OneRangeForAGroupAndOthersForOthers) {
  const auto first = start(domain(1, "shop"));
  EXPECT_EQ(first, 2'000'000u);
  EXPECT_TRUE(has_file("shop"));
  EXPECT_EQ(start(domain(2, "shop")), first);
  EXPECT_NE(start(domain(3, "other")), first);
  EXPECT_NE(start(domain(4)), first);
  EXPECT_NE(start(domain(3, "other")), start(domain(4)));
}

TEST_F(Broker, ARangeIsTheGroupsUntilItsLastDomainIsGone) {
  const auto one = domain(1, "shop"), two = domain(2, "shop");
  ASSERT_EQ(define(one) + define(two), "");
  const auto first = start(one);
  broker->ended(one.uuid);
  broker->release(one.uuid);
  EXPECT_TRUE(has_file("shop")) << "the other one never ran, but is defined";
  EXPECT_NE(start(domain(9)), first);
  EXPECT_EQ(start(two), first);
  broker->ended(two.uuid);
  EXPECT_TRUE(has_file("shop"));
  broker->release(two.uuid);
  EXPECT_FALSE(has_file("shop"));
  EXPECT_EQ(start(domain(3)), first) << "free again";
}

TEST_F(Broker, WhatRunsInAGroupStaysThereUntilItEnds) {
  const auto one = domain(1, "shop");
  ASSERT_EQ(define(one), "");
  const auto first = start(one);
  ASSERT_EQ(define(domain(1, "moved")), "");
  EXPECT_TRUE(has_file("shop"));
  EXPECT_EQ(start(domain(2, "shop")), first);
  broker->ended(Uuid{{2, 1}});
  broker->release(Uuid{{2, 1}});
  broker->ended(one.uuid);
  EXPECT_FALSE(has_file("shop"));
  EXPECT_NE(start(domain(1, "moved")), 0u);
  EXPECT_TRUE(has_file("moved"));
}

TEST_F(Broker, ADefinitionThatIsRefusedCostsNoRange) {
  const auto one = domain(1, "shop");
  ASSERT_EQ(define(one), "");
  const auto first = start(one);
  broker->ended(one.uuid);
  ASSERT_TRUE(broker->claim(domain(1, "other")));  // and then it could not be stored
  broker->restore(one);
  EXPECT_EQ(start(one), first);
}

TEST_F(Broker, AMapMayNameWhatTheGroupHasAndNobodyElsesMay) {
  const auto first = start(domain(1, "shop"));
  broker->restore(domain(1, "shop"));
  EXPECT_EQ(define(with_map(domain(2, "shop"), first)), "");
  EXPECT_EQ(start(with_map(domain(2, "shop"), first)), first);
  for (const auto& stranger : {with_map(domain(3), first), with_map(domain(3, "other"), first + 1)}) {
    const auto refused = define(stranger);
    EXPECT_NE(refused.find("of domain 'd1' of group 'shop'"), std::string::npos) << refused;
  }
  broker->ended(Uuid{{1, 1}});
  broker->ended(Uuid{{2, 1}});
  broker->release(Uuid{{2, 1}});
  const auto refused = define(with_map(domain(3), first));
  EXPECT_NE(refused.find("of group 'shop' (domain 'd1')"), std::string::npos) << refused;
  // And a group has no right to what a single domain holds.
  const auto alone = start(domain(5));
  EXPECT_NE(define(with_map(domain(6, "shop"), alone)).find("of domain 'd5'"), std::string::npos);
}

TEST_F(Broker, AGroupTakesTheMapThatOneOfItNames) {
  ASSERT_EQ(define(with_map(domain(1, "shop"), 3'000'000)), "");
  EXPECT_EQ(start(domain(2, "shop")), 3'000'000u);
  EXPECT_TRUE(has_file("shop"));
  broker->release(Uuid{{1, 1}});
  EXPECT_NE(define(with_map(domain(3), 3'000'000)).find("group 'shop'"), std::string::npos);
}

TEST_F(Broker, TheSizeIsTheGroups) {
  auto big = domain(1, "shop");
  big.userns.id_count = 131'072;
  ASSERT_EQ(define(big), "");
  ASSERT_NE(start(big), 0u);
  EXPECT_EQ(start(domain(2, "shop")), 2'000'000u);
  auto other = domain(3, "shop");
  other.userns.id_count = 65'536;
  EXPECT_NE(
      define(other).find("<userns:ids group='shop'> with count='65536': group 'shop' (domain 'd1', ...) has 131072"),
      std::string::npos)
      << define(other);
  EXPECT_EQ(start(other), 0u);
  broker->ended(Uuid{{1, 1}});
  broker->release(Uuid{{1, 1}});
  broker->ended(Uuid{{2, 1}});
  broker->release(Uuid{{2, 1}});
  ASSERT_EQ(define(other), "");
  EXPECT_EQ(start(other), 2'000'000u);
  broker->ended(other.uuid);
  other.userns.id_count = 131'072;  // alone it may change its mind
  ASSERT_EQ(define(other), "");
  EXPECT_NE(start(other), 0u);
}

TEST_F(Broker, SurvivesTheDaemon) {
  const auto one = domain(1, "shop"), two = domain(2, "shop");
  ASSERT_EQ(define(one) + define(two), "");
  const auto first = start(one);
  restart({two});  // the first one's definition was undefined and its daemon killed before the lease was looked after
  EXPECT_EQ(start(two), first);
  restart({one});
  EXPECT_NE(define(with_map(domain(7), first)).find("group 'shop' (domain 'd1')"), std::string::npos);
  restart({domain(7)});
  EXPECT_FALSE(has_file("shop"));
}

// The lease is gone (set aside, say), what runs is not.
TEST_F(Broker, WhatRunsSaysWhatTheGroupHas) {
  const auto one = domain(1, "shop"), two = domain(2, "shop");
  const auto maps = broker->lease(one);
  ASSERT_TRUE(maps);
  broker.reset();
  ASSERT_EQ(::unlink((paths.state + "/leases/group-shop").c_str()), 0);
  open({one.uuid});
  broker->restore(one);
  broker->restore(two);
  broker->adopt(with_map(one, maps->uid[0].outside), *maps);
  broker->collect({one.uuid, two.uuid});
  EXPECT_EQ(start(two), maps->uid[0].outside);
  EXPECT_TRUE(has_file("shop"));
}

// Metadata of what runs may be changed, and a daemon be another.
TEST_F(Broker, WhatRunsIsOfTheGroupThatItBeganIn) {
  config.ids_per = "project";
  const std::string other = "f" + kProject.substr(1);
  const auto maps = broker->lease(of_nova(domain(1)));
  ASSERT_TRUE(maps);
  open({Uuid{{1, 1}}});
  broker->adopt(of_nova(domain(1), other), *maps);
  broker->collect({Uuid{{1, 1}}});
  EXPECT_TRUE(has_file("nova-" + kProject));
  EXPECT_NE(start(of_nova(domain(2), other)), maps->uid[0].outside);
  EXPECT_EQ(start(of_nova(domain(3))), maps->uid[0].outside);
  // By a daemon that has no projects: the range is kept all the same, and nobody comes to it.
  config.ids_per = "domain";
  open({Uuid{{1, 1}}});
  broker->adopt(of_nova(domain(1)), *maps);
  broker->collect({Uuid{{1, 1}}});
  EXPECT_TRUE(has_file("nova-" + kProject));
  EXPECT_NE(start(of_nova(domain(4))), maps->uid[0].outside);
  broker->ended(Uuid{{1, 1}});
  EXPECT_FALSE(has_file("nova-" + kProject));
}

TEST_F(Broker, ProjectsOfNovaAreGroupsWhereTheConfigurationSaysSo) {
  const auto alone = start(of_nova(domain(1)));
  EXPECT_NE(start(of_nova(domain(2))), alone);
  broker->release(Uuid{{2, 1}});
  config.ids_per = "project";
  const auto shared = start(of_nova(domain(3)));
  EXPECT_TRUE(has_file("nova-" + kProject));
  EXPECT_EQ(start(of_nova(domain(4))), shared);
  EXPECT_EQ(start(of_nova(domain(1))), shared) << "from its next start on";
  EXPECT_NE(start(of_nova(domain(5), "f" + kProject.substr(1))), shared);
  EXPECT_NE(start(of_nova(domain(6, "shop"))), shared) << "a group of its own comes first";
  EXPECT_NE(start(of_nova(domain(7), "a/b")), shared);
  EXPECT_NE(start(domain(8)), shared);
}

TEST_F(Broker, WhatADomainHadAloneIsNobodyElsesWhileItIsInAGroup) {
  auto one = domain(1);
  const auto alone = start(one);
  broker->ended(one.uuid);
  one.userns.id_group = "shop";
  ASSERT_EQ(define(one), "");
  EXPECT_NE(start(one), alone);
  EXPECT_NE(start(domain(2)), alone);
  open();  // two leases that overlapped would be a problem
  broker->restore(domain(1));
  EXPECT_EQ(start(domain(1)), alone);
}

// Who owns a domain writes its metadata.
TEST_F(Broker, AnOwnerComesIntoNoProject) {
  config.ids_per = "project";
  const auto shared = start(of_nova(domain(1)));
  auto owned = of_nova(with_map(domain(2), shared));
  owned.userns.owner = OwnerDef{"root-like", {}, false};
  EXPECT_NE(define(owned), "");
  EXPECT_EQ(start(owned), 0u);
}

TEST_F(Broker, ASessionHasNoGroups) {
  paths.is_session = true;
  EXPECT_NE(define(domain(1, "shop")).find("domains of userns:///session share no ids"), std::string::npos);
  EXPECT_EQ(start(domain(1, "shop")), 0u);
  EXPECT_NE(error.find("share no ids"), std::string::npos) << error;
}

}  // namespace
}  // namespace virtuserns::userns
