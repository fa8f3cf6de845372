// The base of drivers where a module's hooks fail. What works is in tests/unit/test: the test driver is all base.
#include "driver/domain/domain_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "conf/domain_devices.h"
#include "tests/support/sample_def.h"

namespace virtuserns {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;

const Caller kCaller{.connection_id = 7};

struct Thing : DriverDomain {
  int starts = 0;
};

class FailingDriver final : public TypedDomainDriver<Thing> {
 public:
  explicit FailingDriver(EventHub& events) : TypedDomainDriver(events) {}
  std::string type_name() const override { return "FAILING"; }
  Result<DomainRef> create(const Caller& caller, const Uuid& uuid, std::vector<Fd>, unsigned) override {
    const Job job = TRY(take_job(uuid));
    const Locked domain = job.look();
    ++domain->starts;
    domain->autodestroy_by = caller.connection_id;
    begin_running(*domain, 1, VIR_DOMAIN_RUNNING_BOOTED);
    return ref_of(*domain);
  }
  Result<void> destroy(const Caller&, const Uuid& uuid, unsigned) override {
    const Job job = TRY(take_job(uuid));
    const Locked domain = job.look();
    if (!end_running(*domain, VIR_DOMAIN_SHUTOFF_DESTROYED)) domains_.remove_locked(*domain);
    return {};
  }
  Result<int> max_vcpus(const std::string&) override { return 8; }

  using TypedDomainDriver<Thing>::take_job;
  bool fails_reserve = false, fails_store = false, fails_limits = false, attaches = false;
  std::vector<std::string> calls;

 private:
  Result<void> answer(bool fails, std::string call) {
    calls.push_back(std::move(call));
    if (fails) return fail(VIR_ERR_OPERATION_FAILED, "told to fail");
    return {};
  }
  DefaultsContext defaults_context() const override { return {"x86_64", "/bin/true"}; }
  std::size_t host_cpus() const override { return 8; }
  Result<void> reserve(const DomainDef& def) override { return answer(fails_reserve, "reserve " + def.name); }
  void restore(const DomainDef& def) override { calls.push_back("restore " + def.description); }
  void release(const Uuid&) override { calls.push_back("release"); }
  Result<void> store_definition(const DomainDef& def) override { return answer(fails_store, "store " + def.name); }
  Result<void> remove_definition(const Uuid&) override { return answer(fails_store, "remove"); }
  Result<void> store_autostart(const Uuid&, bool) override { return answer(fails_store, "autostart"); }
  Result<void> apply_limits(DriverDomain&, DomainDef&, Limits, const TypedParams&) override {
    return answer(fails_limits, "limits");
  }
  Result<std::string> attach_live(DriverDomain& domain, DomainDef& live, DeviceDef device) override {
    if (!attaches) return TypedDomainDriver<Thing>::attach_live(domain, live, std::move(device));
    calls.push_back("attach");
    TRY(attach_to(live, std::move(device)));
    return std::string("fs1");
  }
  Result<std::string> detach_live(DriverDomain& domain, DomainDef& live, const DeviceDef& device) override {
    if (!attaches) return TypedDomainDriver<Thing>::detach_live(domain, live, device);
    calls.push_back("detach");
    return alias_of(TRY(detach_from(live, device)));
  }
  void sample_live(DriverDomain&, const DomainDef&, StatsSample&) override {}
};

class DomainDriverTest : public ::testing::Test {
 protected:
  DomainDriverTest() {
    (void)events_.subscribe([this](const Event&) { ++event_count_; });
  }
  static DomainDef make_def(const std::string& name, const std::string& description) {
    DomainDef def = sample_def(name);
    def.uuid = Uuid{{1, 2, 3, 4}};
    def.description = description;
    return def;
  }
  Uuid define() {
    const auto ref = driver_.define(kCaller, make_def("web", "first"), 0);
    EXPECT_TRUE(ref) << ref.error().text;
    driver_.calls.clear();
    event_count_ = 0;
    return ref->uuid;
  }

  EventHub events_;
  int event_count_ = 0;
  FailingDriver driver_{events_};
};

TEST_F(DomainDriverTest, AFirstDefinitionThatCannotBeStoredLeavesNothing) {
  driver_.fails_store = true;
  EXPECT_EQ(driver_.define(kCaller, make_def("web", "first"), 0).error().text, "told to fail");
  EXPECT_THAT(driver_.calls, ElementsAre("reserve web", "store web", "release"));
  EXPECT_THAT(*driver_.list_domains(), IsEmpty());
  EXPECT_EQ(driver_.lookup_by_name("web").error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_EQ(event_count_, 0);
  driver_.fails_store = false;
  EXPECT_TRUE(driver_.define(kCaller, make_def("web", "first"), 0)) << "the name is free";
}

TEST_F(DomainDriverTest, ASecondDefinitionThatIsRefusedLeavesTheFirst) {
  const Uuid web = define();
  driver_.fails_reserve = true;
  EXPECT_FALSE(driver_.define(kCaller, make_def("web", "second"), 0));
  EXPECT_THAT(driver_.calls, ElementsAre("reserve web", "restore first"));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->description, "first");
  EXPECT_EQ(event_count_, 0);
}

TEST_F(DomainDriverTest, WhatCannotBeStoredIsNotChanged) {
  const Uuid web = define();
  driver_.fails_store = true;
  EXPECT_FALSE(driver_.undefine(kCaller, web, 0));
  EXPECT_FALSE(driver_.rename(kCaller, web, "web2", 0));
  EXPECT_FALSE(driver_.set_autostart(kCaller, web, true));
  EXPECT_FALSE(driver_.set_metadata(kCaller, web, VIR_DOMAIN_METADATA_DESCRIPTION, "second", "", 0));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->description, "first");
  EXPECT_TRUE(driver_.lookup_by_name("web"));
  EXPECT_FALSE(driver_.lookup_by_name("web2"));
  EXPECT_FALSE(*driver_.autostart(web));
  EXPECT_EQ(event_count_, 0);
}

TEST_F(DomainDriverTest, ALimitThatCannotBeAppliedIsNeitherStoredNorShown) {
  const Uuid web = define();
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  driver_.fails_limits = true;
  constexpr unsigned kBoth = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;
  EXPECT_FALSE(driver_.set_memory(kCaller, web, 131'072, kBoth));
  EXPECT_THAT(driver_.calls, ElementsAre("limits"));
  EXPECT_EQ(event_count_, 0);
  ASSERT_TRUE(driver_.set_memory(kCaller, web, 131'072, VIR_DOMAIN_AFFECT_CONFIG)) << "nothing to apply";
  EXPECT_EQ(event_count_, 0) << "what runs has the size it had";
  driver_.fails_limits = false;
  ASSERT_TRUE(driver_.set_memory(kCaller, web, 131'072, kBoth));
  EXPECT_EQ(event_count_, 1);
}

TEST_F(DomainDriverTest, DevicesOfARunningDomainAreTheModulesToRefuse) {
  const Uuid web = define();
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  FilesystemDef data;
  data.source = "/srv/data";
  data.target = "/data";
  const auto live = driver_.attach_device(kCaller, web, data, VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG);
  EXPECT_EQ(live.error().code, VIR_ERR_OPERATION_UNSUPPORTED);
  EXPECT_EQ(driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE)->filesystems.size(), 1U);
  EXPECT_TRUE(driver_.attach_device(kCaller, web, data, VIR_DOMAIN_AFFECT_CONFIG));
}

TEST_F(DomainDriverTest, ADeviceThatCannotBeStoredIsTakenBack) {
  const Uuid web = define();
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  FilesystemDef data;
  data.source = "/srv/data";
  data.target = "/data";
  driver_.attaches = driver_.fails_store = true;
  driver_.calls.clear();
  event_count_ = 0;
  constexpr unsigned kBoth = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;
  EXPECT_FALSE(driver_.attach_device(kCaller, web, data, kBoth));
  EXPECT_THAT(driver_.calls, IsSupersetOf({"attach", "detach"}));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->filesystems.size(), 1U);
  EXPECT_EQ(event_count_, 0);
  driver_.fails_store = false;
  ASSERT_TRUE(driver_.attach_device(kCaller, web, data, kBoth));
  EXPECT_EQ(event_count_, 1);
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->filesystems.size(), 2U);
  // One that the stored definition does not take never reaches what runs.
  driver_.calls.clear();
  EXPECT_FALSE(driver_.attach_device(kCaller, web, data, kBoth));
  EXPECT_THAT(driver_.calls, Not(Contains("attach")));
  ASSERT_TRUE(driver_.detach_device(kCaller, web, data, VIR_DOMAIN_AFFECT_LIVE));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->filesystems.size(), 1U);
  EXPECT_EQ(driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE)->filesystems.size(), 2U);
}

TEST_F(DomainDriverTest, WhoeverWaitedForADomainThatWentIsTold) {
  const Uuid web = define();
  Result<void> renamed;
  std::thread waiting;
  {
    const auto job = driver_.take_job(web).value();
    EXPECT_EQ(job.domain->starts, 0) << "a domain of the module's own class";
    waiting = std::thread([&] { renamed = driver_.rename(kCaller, web, "web2", 0); });
    const auto domain = job.look();
    domain->persistent = false;  // its end, while the job is waited for
  }
  waiting.join();
  EXPECT_EQ(renamed.error().code, VIR_ERR_NO_DOMAIN);
}

TEST_F(DomainDriverTest, TheDaemonsRounds) {
  const Uuid web = define();
  ASSERT_TRUE(driver_.set_autostart(kCaller, web, true));
  EXPECT_FALSE(driver_.has_active_domains());
  driver_.autostart_all();
  driver_.autostart_all();
  EXPECT_EQ((*driver_.take_job(web)).domain->starts, 1);
  EXPECT_TRUE(driver_.has_active_domains());
  driver_.connection_closed(kCaller.connection_id);
  EXPECT_TRUE(driver_.has_active_domains()) << "started for the daemon, not for that connection";
  driver_.connection_closed(0);
  EXPECT_FALSE(driver_.has_active_domains());
}

}  // namespace
}  // namespace virtuserns
