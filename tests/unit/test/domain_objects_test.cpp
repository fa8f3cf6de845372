#include "conf/domain_objects.h"

#include <gtest/gtest.h>

namespace virtuserns {
namespace {

TEST(Impact, CurrentFollowsTheState) {
  EXPECT_EQ(*resolve_impact(0, true, true), (Impact{true, false}));
  EXPECT_EQ(*resolve_impact(0, false, true), (Impact{false, true}));
  EXPECT_EQ(*resolve_impact(VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG, true, true), (Impact{true, true}));
  EXPECT_EQ(resolve_impact(VIR_DOMAIN_AFFECT_LIVE, false, true).error().text, "domain is not running");
  EXPECT_EQ(resolve_impact(VIR_DOMAIN_AFFECT_CONFIG, true, false).error().code, VIR_ERR_OPERATION_INVALID);
}

TEST(DomainObject, RunsOnACopyOfItsDefinition) {
  DomainObject domain;
  domain.def.name = "web";
  EXPECT_FALSE(assign_persistent_def(domain, domain.def));
  begin_running(domain, 42, VIR_DOMAIN_RUNNING_BOOTED);
  AffectedDefs both = *affected_defs(domain, VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG);
  both.live->title = "live";
  both.config->title = "config";
  EXPECT_EQ((*queried_def(domain, 0))->title, "live");
  EXPECT_TRUE(end_running(domain, VIR_DOMAIN_SHUTOFF_DESTROYED));
  EXPECT_EQ(domain.def.title, "config");
  EXPECT_EQ(domain.def.id, -1);
  EXPECT_EQ(domain.reason, VIR_DOMAIN_SHUTOFF_DESTROYED);
}

TEST(DomainObject, TransientRunLeavesThePersistentDefinition) {
  DomainObject domain;
  assign_persistent_def(domain, domain.def);
  DomainDef once;
  once.title = "once";
  ASSERT_TRUE(assign_transient_def(domain, once));
  begin_running(domain, 1, VIR_DOMAIN_RUNNING_BOOTED);
  EXPECT_EQ(domain.def.title, "once");
  EXPECT_FALSE(assign_transient_def(domain, once));
  EXPECT_TRUE(end_running(domain, VIR_DOMAIN_SHUTOFF_SHUTDOWN));
  EXPECT_EQ(domain.def.title, "");
}

TEST(DomainObject, NothingIsLeftOfATransientOne) {
  DomainObject domain;
  EXPECT_FALSE(domain.exists());
  begin_running(domain, 1, VIR_DOMAIN_RUNNING_BOOTED);
  EXPECT_TRUE(domain.exists());
  EXPECT_FALSE(end_running(domain, VIR_DOMAIN_SHUTOFF_CRASHED));
}

TEST(LiveValues, OnlyGeneratedOnesAreDropped) {
  DomainDef def;
  def.id = 5;
  def.interfaces.resize(2);
  def.interfaces[0].alias = DeviceAlias{"net0"};
  def.interfaces[0].target_dev = "vnet3";
  def.interfaces[1].alias = DeviceAlias{"ua-lan"};
  def.interfaces[1].target_dev = "lan0";
  const DomainDef plain = without_live_values(def);
  EXPECT_EQ(plain.id, -1);
  EXPECT_FALSE(plain.interfaces[0].alias);
  EXPECT_EQ(plain.interfaces[0].target_dev, "");
  EXPECT_EQ(plain.interfaces[1], def.interfaces[1]);
}

TEST(ListFilter, EveryGroupMustAgree) {
  const ListFacts running{VIR_DOMAIN_RUNNING, true, true, false};
  EXPECT_TRUE(passes_list_filter(running, 0));
  EXPECT_TRUE(passes_list_filter(running, VIR_CONNECT_LIST_DOMAINS_ACTIVE | VIR_CONNECT_LIST_DOMAINS_PERSISTENT));
  EXPECT_TRUE(passes_list_filter(running, VIR_CONNECT_LIST_DOMAINS_ACTIVE | VIR_CONNECT_LIST_DOMAINS_INACTIVE));
  EXPECT_FALSE(passes_list_filter(running, VIR_CONNECT_LIST_DOMAINS_ACTIVE | VIR_CONNECT_LIST_DOMAINS_TRANSIENT));
  EXPECT_FALSE(passes_list_filter(running, VIR_CONNECT_LIST_DOMAINS_PAUSED | VIR_CONNECT_LIST_DOMAINS_SHUTOFF));
  EXPECT_FALSE(passes_list_filter(running, VIR_CONNECT_LIST_DOMAINS_AUTOSTART));
  EXPECT_FALSE(passes_list_filter(running, VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT));
}

TEST(DomainList, ClaimsRenamesAndRemoves) {
  DomainList<DomainObject> list;
  const Uuid one = make_random_uuid(), two = make_random_uuid();
  EXPECT_TRUE(list.claim("a", one)->is_new);
  EXPECT_FALSE(list.claim("a", one)->is_new);
  EXPECT_EQ(list.claim("a", two).error().code, VIR_ERR_OPERATION_FAILED);
  EXPECT_EQ(list.claim("b", one).error().text, "domain 'a' is already defined with uuid " + format_uuid(one));
  EXPECT_TRUE(list.claim("b", two)->is_new);
  EXPECT_EQ(list.rename(one, "b").error().code, VIR_ERR_OPERATION_INVALID);
  ASSERT_TRUE(list.rename(one, "c"));
  EXPECT_FALSE(list.find_by_name("a"));
  EXPECT_EQ(*list.find_by_name("c"), *list.find(one));
  list.remove(one);
  EXPECT_EQ(list.find(one).error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_TRUE(list.claim("c", make_random_uuid())) << "the name is free again";
  EXPECT_EQ(list.size(), 2U);
}

TEST(Metadata, ElementsAreKeptByNamespace) {
  DomainDef def;
  ASSERT_TRUE(set_metadata(def, VIR_DOMAIN_METADATA_ELEMENT, "<x/>", "urn:x"));
  ASSERT_TRUE(set_metadata(def, VIR_DOMAIN_METADATA_ELEMENT, "<y/>", "urn:y"));
  ASSERT_TRUE(set_metadata(def, VIR_DOMAIN_METADATA_ELEMENT, "<x2/>", "urn:x"));
  EXPECT_EQ(def.metadata.size(), 2U);
  EXPECT_EQ(*get_metadata(def, VIR_DOMAIN_METADATA_ELEMENT, "urn:x"), "<x2/>");
  EXPECT_EQ(get_metadata(def, VIR_DOMAIN_METADATA_ELEMENT, "urn:z").error().code, VIR_ERR_NO_DOMAIN_METADATA);
  EXPECT_FALSE(set_metadata(def, VIR_DOMAIN_METADATA_TITLE, "two\nlines", ""));
  EXPECT_EQ(set_metadata(def, 99, "x", "").error().code, VIR_ERR_INVALID_ARG);
}

}  // namespace
}  // namespace virtuserns
