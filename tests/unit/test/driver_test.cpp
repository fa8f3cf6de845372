#include "driver/test/driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libvirt/libvirt.h>
#include <poll.h>

#include <thread>

#include "conf/domain_devices.h"
#include "tests/support/sample_def.h"

namespace virtuserns::test_driver {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Caller kCaller{.connection_id = 7};

InterfaceDef make_link(std::uint8_t last) {
  InterfaceDef link;
  link.source = "br0";
  link.mac = MacAddress{{0x52, 0x54, 0, 0, 0, last}};
  return link;
}

// "web STARTED/0", in the order of emission.
std::string describe(const Event& event) {
  std::string text = event.domain.name + " ";
  if (const auto* lifecycle = std::get_if<LifecycleEvent>(&event.body)) {
    static constexpr const char* kNames[] = {"DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED"};
    return text + kNames[lifecycle->event] + "/" + std::to_string(lifecycle->detail);
  }
  if (std::holds_alternative<RebootEvent>(event.body)) return text + "REBOOT";
  if (const auto* added = std::get_if<DeviceAddedEvent>(&event.body)) return text + "ADDED " + added->alias;
  if (const auto* removed = std::get_if<DeviceRemovedEvent>(&event.body)) return text + "REMOVED " + removed->alias;
  if (const auto* changed = std::get_if<MetadataChangeEvent>(&event.body)) {
    return text + "METADATA " + std::to_string(changed->type) + changed->uri;
  }
  return text + "?";
}

class TestDriverTest : public ::testing::Test {
 protected:
  TestDriverTest() {
    (void)events_.subscribe([this](const Event& event) { seen_.push_back(describe(event)); });
  }

  Uuid define(const std::string& name) { return define(sample_def(name)); }
  Uuid define(DomainDef def) {
    auto ref = driver_.define(kCaller, std::move(def), 0);
    EXPECT_TRUE(ref) << ref.error().text;
    return ref->uuid;
  }
  Uuid start(const std::string& name) {
    const Uuid uuid = define(name);
    EXPECT_TRUE(driver_.create(kCaller, uuid, {}, 0));
    return uuid;
  }
  std::pair<int, int> state(const Uuid& uuid) {
    const auto state = driver_.state(uuid, 0);
    return state ? std::pair(state->state, state->reason) : std::pair(-1, state.error().code);
  }
  std::vector<std::string> take_events() { return std::exchange(seen_, {}); }

  EventHub events_;
  std::vector<std::string> seen_;
  TestDriver driver_{events_};
};

TEST_F(TestDriverTest, LifeOfAPersistentDomain) {
  const Uuid web = define("web");
  EXPECT_EQ(state(web), std::pair(int{VIR_DOMAIN_SHUTOFF}, int{VIR_DOMAIN_SHUTOFF_UNKNOWN}));
  EXPECT_FALSE(*driver_.is_active(web));
  EXPECT_EQ(driver_.lookup_by_name("web")->id, -1);

  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  EXPECT_EQ(state(web), std::pair(int{VIR_DOMAIN_RUNNING}, int{VIR_DOMAIN_RUNNING_BOOTED}));
  EXPECT_EQ(driver_.lookup_by_name("web")->id, 1);
  EXPECT_EQ(driver_.lookup_by_id(1)->uuid, web);
  EXPECT_TRUE(driver_.has_active_domains());

  ASSERT_TRUE(driver_.suspend(kCaller, web));
  EXPECT_TRUE(driver_.suspend(kCaller, web)) << "suspending a paused domain is no error for containers";
  EXPECT_EQ(state(web), std::pair(int{VIR_DOMAIN_PAUSED}, int{VIR_DOMAIN_PAUSED_USER}));
  ASSERT_TRUE(driver_.resume(kCaller, web));
  EXPECT_EQ(state(web), std::pair(int{VIR_DOMAIN_RUNNING}, int{VIR_DOMAIN_RUNNING_UNPAUSED}));
  ASSERT_TRUE(driver_.reboot(kCaller, web, 0));
  ASSERT_TRUE(driver_.shutdown(kCaller, web, 0));
  EXPECT_EQ(state(web), std::pair(int{VIR_DOMAIN_SHUTOFF}, int{VIR_DOMAIN_SHUTOFF_SHUTDOWN}));
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  ASSERT_TRUE(driver_.destroy(kCaller, web, 0));
  EXPECT_EQ(state(web), std::pair(int{VIR_DOMAIN_SHUTOFF}, int{VIR_DOMAIN_SHUTOFF_DESTROYED}));
  ASSERT_TRUE(driver_.undefine(kCaller, web, 0));
  EXPECT_EQ(driver_.lookup_by_uuid(web).error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_FALSE(driver_.has_active_domains());

  EXPECT_THAT(take_events(),
              ElementsAre("web DEFINED/0", "web STARTED/0", "web SUSPENDED/0", "web RESUMED/0", "web REBOOT",
                          "web STOPPED/0", "web STARTED/0", "web STOPPED/1", "web UNDEFINED/0"));
}

TEST_F(TestDriverTest, WrongStatesAreOperationInvalid) {
  const Uuid web = define("web");
  for (const auto& result :
       {driver_.destroy(kCaller, web, 0), driver_.suspend(kCaller, web), driver_.resume(kCaller, web),
        driver_.shutdown(kCaller, web, 0), driver_.reboot(kCaller, web, 0), driver_.reset(kCaller, web, 0)}) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, VIR_ERR_OPERATION_INVALID);
    EXPECT_EQ(result.error().text, "domain is not running");
  }
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  EXPECT_EQ(driver_.create(kCaller, web, {}, 0).error().text, "Domain is already running");
  EXPECT_EQ(driver_.resume(kCaller, web).error().text, "domain is already running");
  EXPECT_EQ(driver_.rename(kCaller, web, "new", 0).error().code, VIR_ERR_OPERATION_INVALID);
  EXPECT_EQ(driver_.destroy(kCaller, web, 1U << 30).error().code, VIR_ERR_INVALID_ARG);
}

TEST_F(TestDriverTest, NamesAndUuidsAreUnique) {
  const Uuid web = define("web");
  DomainDef same_name = sample_def("web");
  auto clash = driver_.define(kCaller, same_name, 0);
  ASSERT_FALSE(clash);
  EXPECT_EQ(clash.error().code, VIR_ERR_OPERATION_FAILED);
  EXPECT_EQ(clash.error().text, "domain 'web' already exists with uuid " + format_uuid(web));

  DomainDef same_uuid = sample_def("other");
  same_uuid.uuid = web;
  same_uuid.has_uuid = true;
  clash = driver_.define(kCaller, same_uuid, 0);
  ASSERT_FALSE(clash);
  EXPECT_EQ(clash.error().text, "domain 'web' is already defined with uuid " + format_uuid(web));
  EXPECT_EQ(driver_.list_domains()->size(), 1U);
}

TEST_F(TestDriverTest, TransientDomainsEndWithTheirRun) {
  auto ref = driver_.create_transient(kCaller, sample_def("job"), {}, 0);
  ASSERT_TRUE(ref) << ref.error().text;
  EXPECT_FALSE(*driver_.is_persistent(ref->uuid));
  EXPECT_EQ(driver_.undefine(kCaller, ref->uuid, 0).error().text, "Cannot undefine transient domain");
  EXPECT_EQ(driver_.set_autostart(kCaller, ref->uuid, true).error().code, VIR_ERR_OPERATION_INVALID);
  EXPECT_EQ(driver_.set_memory(kCaller, ref->uuid, 1024, VIR_DOMAIN_AFFECT_CONFIG).error().text,
            "transient domains do not have any persistent config");
  ASSERT_TRUE(driver_.destroy(kCaller, ref->uuid, 0));
  EXPECT_EQ(driver_.lookup_by_name("job").error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_TRUE(driver_.create_transient(kCaller, sample_def("job"), {}, 0)) << "the name is free again";
}

TEST_F(TestDriverTest, CreateXmlOverADefinedDomainKeepsItsDefinition) {
  DomainDef def = sample_def("web");
  const Uuid web = define(def);
  def.uuid = web;
  def.has_uuid = true;
  def.title = "for once";
  ASSERT_TRUE(driver_.create_transient(kCaller, def, {}, 0));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->title, "for once");
  EXPECT_EQ(driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE)->title, "");
  EXPECT_EQ(driver_.create_transient(kCaller, def, {}, 0).error().text, "domain 'web' is already active");
  ASSERT_TRUE(driver_.destroy(kCaller, web, 0));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->title, "");
}

TEST_F(TestDriverTest, DefiningARunningDomainChangesItsNextRun) {
  const Uuid web = start("web");
  DomainDef def = sample_def("web");
  def.uuid = web;
  def.has_uuid = true;
  def.title = "next";
  take_events();
  ASSERT_TRUE(driver_.define(kCaller, def, 0));
  EXPECT_THAT(take_events(), ElementsAre("web DEFINED/1"));
  EXPECT_TRUE(*driver_.is_updated(web));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->title, "");
  EXPECT_EQ(driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE)->title, "next");
  ASSERT_TRUE(driver_.destroy(kCaller, web, 0));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->title, "next");
}

TEST_F(TestDriverTest, UndefiningARunningDomainMakesItTransient) {
  const Uuid web = start("web");
  ASSERT_TRUE(driver_.set_autostart(kCaller, web, true));
  ASSERT_TRUE(driver_.undefine(kCaller, web, 0));
  EXPECT_FALSE(*driver_.is_persistent(web));
  EXPECT_FALSE(*driver_.autostart(web));
  ASSERT_TRUE(driver_.shutdown(kCaller, web, 0));
  EXPECT_THAT(*driver_.list_domains(), IsEmpty());
}

TEST_F(TestDriverTest, LiveDefinitionHasWhatTheStartGaveIt) {
  DomainDef def = sample_def("web");
  def.interfaces.push_back(make_link(1));
  const Uuid web = define(def);
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  const DomainDef live = *driver_.definition(kCaller, web, 0);
  EXPECT_EQ(live.id, 1);
  EXPECT_EQ(live.interfaces.at(0).target_dev, "vnet0");
  EXPECT_EQ(live.interfaces.at(0).alias->name, "net0");
  const DomainDef next = *driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE);
  EXPECT_EQ(next.id, -1);
  EXPECT_EQ(next.interfaces.at(0).target_dev, "");
  EXPECT_FALSE(next.interfaces.at(0).alias);
}

TEST_F(TestDriverTest, RenameTellsBothNames) {
  const Uuid web = define("web");
  define("taken");
  take_events();
  EXPECT_EQ(driver_.rename(kCaller, web, "web", 0).error().text, "Can't rename domain to itself");
  EXPECT_EQ(driver_.rename(kCaller, web, "taken", 0).error().text, "domain with name 'taken' already exists");
  ASSERT_TRUE(driver_.rename(kCaller, web, "shop", 0));
  EXPECT_EQ(driver_.lookup_by_name("shop")->uuid, web);
  EXPECT_EQ(driver_.lookup_by_name("web").error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->name, "shop");
  EXPECT_THAT(take_events(), ElementsAre("web UNDEFINED/1", "shop DEFINED/2"));
}

TEST_F(TestDriverTest, AutodestroyEndsWithItsConnection) {
  const Uuid kept = start("kept");
  auto own = driver_.create_transient(kCaller, sample_def("own"), {}, VIR_DOMAIN_START_AUTODESTROY);
  ASSERT_TRUE(own);
  driver_.connection_closed(8);
  EXPECT_TRUE(*driver_.is_active(own->uuid)) << "another connection's end";
  take_events();
  driver_.connection_closed(7);
  EXPECT_EQ(driver_.lookup_by_uuid(own->uuid).error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_TRUE(*driver_.is_active(kept));
  EXPECT_THAT(take_events(), ElementsAre("own STOPPED/1"));
}

TEST_F(TestDriverTest, SignalsToInit) {
  const Uuid web = start("web");
  EXPECT_EQ(driver_.send_process_signal(kCaller, web, 2, VIR_DOMAIN_PROCESS_SIGNAL_KILL, 0).error().code,
            VIR_ERR_ARGUMENT_UNSUPPORTED);
  ASSERT_TRUE(driver_.send_process_signal(kCaller, web, 1, VIR_DOMAIN_PROCESS_SIGNAL_HUP, 0));
  EXPECT_TRUE(*driver_.is_active(web));
  ASSERT_TRUE(driver_.send_process_signal(kCaller, web, 1, VIR_DOMAIN_PROCESS_SIGNAL_SEGV, 0));
  EXPECT_EQ(state(web), std::pair(int{VIR_DOMAIN_SHUTOFF}, int{VIR_DOMAIN_SHUTOFF_CRASHED}));
  EXPECT_EQ(take_events().back(), "web STOPPED/2");
}

TEST_F(TestDriverTest, CountersAdvanceWithEachLookAndStandStillWhilePaused) {
  const Uuid web = start("web");
  const auto first = driver_.info(web)->cpu_time_ns;
  const auto second = driver_.info(web)->cpu_time_ns;
  EXPECT_EQ(first, 10'000'000U);
  EXPECT_EQ(second, 20'000'000U);
  ASSERT_TRUE(driver_.suspend(kCaller, web));
  EXPECT_EQ(driver_.info(web)->cpu_time_ns, second);
}

TEST_F(TestDriverTest, BulkStatsOfRunningAndShutOffDomains) {
  DomainDef def = sample_def("a");
  def.interfaces.push_back(make_link(1));
  const Uuid a = define(def);
  define("b");
  ASSERT_TRUE(driver_.create(kCaller, a, {}, 0));
  auto all = driver_.all_stats({}, 0, 0);
  ASSERT_EQ(all->size(), 2U);
  const auto active = driver_.all_stats({}, VIR_DOMAIN_STATS_STATE | VIR_DOMAIN_STATS_INTERFACE,
                                        VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE);
  ASSERT_EQ(active->size(), 1U);
  EXPECT_EQ(active->at(0).ref.name, "a");
  const TypedParams& params = active->at(0).params;
  EXPECT_EQ(params.at(0), (TypedParam{"state.state", std::int32_t{VIR_DOMAIN_RUNNING}}));
  EXPECT_EQ(params.at(1), (TypedParam{"state.reason", std::int32_t{VIR_DOMAIN_RUNNING_BOOTED}}));
  EXPECT_EQ(params.at(2), (TypedParam{"net.count", std::uint32_t{1}}));
  EXPECT_EQ(params.at(3), (TypedParam{"net.0.name", std::string("vnet0")}));
  EXPECT_EQ(params.at(4), (TypedParam{"net.0.rx.bytes", std::uint64_t{2000}})) << "the second look";
  EXPECT_EQ(driver_.all_stats({}, 1U << 20, static_cast<unsigned>(VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS))
                .error()
                .code,
            VIR_ERR_ARGUMENT_UNSUPPORTED);
}

TEST_F(TestDriverTest, LiveAndConfigAreSeparate) {
  const Uuid web = start("web");
  ASSERT_TRUE(driver_.set_memory(kCaller, web, 65'536, VIR_DOMAIN_AFFECT_LIVE));
  EXPECT_EQ(driver_.info(web)->memory_kib, 65'536U);
  EXPECT_EQ(driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE)->max_memory_kib, 262'144U);
  ASSERT_TRUE(driver_.set_memory_parameters(kCaller, web, {{"hard_limit", std::uint64_t{100'000}}},
                                            VIR_DOMAIN_AFFECT_CONFIG));
  EXPECT_EQ(driver_.memory_parameters(web, VIR_DOMAIN_AFFECT_LIVE)->at(0).value, TypedValue(kMemoryUnlimitedKib));
  EXPECT_EQ(driver_.memory_parameters(web, VIR_DOMAIN_AFFECT_CONFIG)->at(0).value,
            TypedValue(std::uint64_t{100'000}));
  EXPECT_EQ(driver_.memory_parameters(web, VIR_DOMAIN_AFFECT_CONFIG | VIR_DOMAIN_AFFECT_LIVE).error().code,
            VIR_ERR_INVALID_ARG);
  ASSERT_TRUE(driver_.destroy(kCaller, web, 0));
  EXPECT_EQ(driver_.info(web)->memory_kib, 262'144U);
  EXPECT_EQ(driver_.set_memory(kCaller, web, 1024, VIR_DOMAIN_AFFECT_LIVE).error().text, "domain is not running");
}

TEST_F(TestDriverTest, VcpusArePinnedAndCounted) {
  DomainDef def = sample_def("web");
  def.vcpu.max = 4;
  const Uuid web = define(def);
  ASSERT_TRUE(driver_.set_vcpus(kCaller, web, 2, VIR_DOMAIN_AFFECT_CONFIG));
  EXPECT_EQ(*driver_.vcpu_count(web, VIR_DOMAIN_AFFECT_CONFIG), 2);
  EXPECT_EQ(*driver_.vcpu_count(web, VIR_DOMAIN_AFFECT_CONFIG | unsigned{VIR_DOMAIN_VCPU_MAXIMUM}), 4);
  EXPECT_EQ(driver_.set_vcpus(kCaller, web, 5, 0).error().text, "requested cpu amount exceeds maximum (5 > 4)");
  ASSERT_TRUE(driver_.pin_vcpu(kCaller, web, 1, {false, false, true, true}, VIR_DOMAIN_AFFECT_CONFIG));
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  const auto vcpus = *driver_.vcpus(web);
  ASSERT_EQ(vcpus.size(), 2U);
  EXPECT_EQ(vcpus[0].cpu, 0);
  EXPECT_EQ(vcpus[1].cpu, 2);
  EXPECT_FALSE(vcpus[1].affinity[1]);
  EXPECT_TRUE(vcpus[1].affinity[3]);
}

// Of a module that changes what runs: it is not asked before the change is the owner's to make.
TEST_F(TestDriverTest, AnOwnerWritesOnlyWhatIsOnTheList) {
  const Caller anna{.uid = 1001, .user_name = "anna", .connection_id = 8, .owns_only = true};
  DomainDef def = sample_def("web");
  EXPECT_EQ(driver_.define(anna, def, 0).error().code, VIR_ERR_ACCESS_DENIED);
  def.userns.owner = OwnerDef{"elsa", {}, false};
  EXPECT_EQ(driver_.define(anna, def, 0).error().code, VIR_ERR_ACCESS_DENIED);
  def.userns.owner = OwnerDef{"anna", {}, false};
  const auto web = driver_.define(anna, def, 0);
  ASSERT_TRUE(web) << web.error().text;
  ASSERT_TRUE(driver_.create(anna, web->uuid, {}, 0));
  for (const unsigned flags : {unsigned{VIR_DOMAIN_AFFECT_LIVE}, unsigned{VIR_DOMAIN_AFFECT_CONFIG}, 0U}) {
    EXPECT_EQ(driver_.attach_device(anna, web->uuid, make_link(1), flags).error().code, VIR_ERR_ACCESS_DENIED);
    EXPECT_TRUE(driver_.definition(anna, web->uuid, 0)->interfaces.empty());
  }
  ASSERT_TRUE(driver_.attach_device(kCaller, web->uuid, make_link(1), VIR_DOMAIN_AFFECT_LIVE));
  EXPECT_EQ(driver_.update_device(anna, web->uuid, make_link(1), VIR_DOMAIN_AFFECT_LIVE).error().code,
            VIR_ERR_ACCESS_DENIED);
  // What an administrator has written is the administrator's to change.
  EXPECT_EQ(driver_.set_memory(anna, web->uuid, 1024, VIR_DOMAIN_AFFECT_LIVE).error().code, VIR_ERR_ACCESS_DENIED);
  EXPECT_EQ(
      driver_.set_metadata(kCaller, web->uuid, VIR_DOMAIN_METADATA_ELEMENT, std::nullopt, std::string(kUsernsUri), 0)
          .error()
          .code,
      VIR_ERR_OPERATION_UNSUPPORTED);
  EXPECT_EQ(driver_.owner(web->uuid)->value(), def.userns.owner);
  // Names, uuids, and transient domains.
  DomainDef theirs = sample_def("theirs");
  const Uuid other = define(theirs);
  def.uuid = other;
  def.has_uuid = true;
  for (const char* name : {"theirs", "mine"}) {
    def.name = name;
    EXPECT_EQ(driver_.define(anna, def, 0).error().code, VIR_ERR_ACCESS_DENIED) << name;
    EXPECT_EQ(driver_.create_transient(anna, def, {}, 0).error().code, VIR_ERR_ACCESS_DENIED) << name;
  }
  EXPECT_FALSE(driver_.definition(kCaller, other, 0)->userns.owner);
}

TEST_F(TestDriverTest, DevicesComeAndGoWithEvents) {
  const Uuid web = start("web");
  take_events();
  ASSERT_TRUE(driver_.attach_device(kCaller, web, make_link(1), VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG));
  ASSERT_TRUE(driver_.attach_device(kCaller, web, make_link(2), VIR_DOMAIN_AFFECT_LIVE));
  EXPECT_EQ(driver_.definition(kCaller, web, 0)->interfaces.size(), 2U);
  EXPECT_EQ(driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE)->interfaces.size(), 1U);
  EXPECT_FALSE(driver_.attach_device(kCaller, web, make_link(2), VIR_DOMAIN_AFFECT_LIVE)) << "the MAC is taken";
  InterfaceDef down = make_link(1);
  down.link_state = LinkState::kDown;
  ASSERT_TRUE(driver_.update_device(kCaller, web, down, VIR_DOMAIN_AFFECT_LIVE));
  const InterfaceDef updated = driver_.definition(kCaller, web, 0)->interfaces.at(0);
  EXPECT_EQ(updated.link_state, LinkState::kDown);
  EXPECT_EQ(updated.target_dev, "vnet0");
  // As a client does: the device as it stands in the live XML.
  ASSERT_TRUE(driver_.detach_device(kCaller, web, updated, VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG));
  EXPECT_EQ(driver_.detach_device(kCaller, web, make_link(9), VIR_DOMAIN_AFFECT_LIVE).error().code,
            VIR_ERR_DEVICE_MISSING);
  EXPECT_THAT(driver_.definition(kCaller, web, VIR_DOMAIN_XML_INACTIVE)->interfaces, IsEmpty());
  EXPECT_THAT(take_events(), ElementsAre("web ADDED net0", "web ADDED net1", "web REMOVED net0"));
}

TEST_F(TestDriverTest, MetadataIsPerDefinitionAndTold) {
  const Uuid web = start("web");
  take_events();
  EXPECT_EQ(driver_.metadata(web, VIR_DOMAIN_METADATA_TITLE, "", 0).error().code, VIR_ERR_NO_DOMAIN_METADATA);
  ASSERT_TRUE(driver_.set_metadata(kCaller, web, VIR_DOMAIN_METADATA_TITLE, "Shop", "", VIR_DOMAIN_AFFECT_CONFIG));
  EXPECT_EQ(*driver_.metadata(web, VIR_DOMAIN_METADATA_TITLE, "", VIR_DOMAIN_AFFECT_CONFIG), "Shop");
  EXPECT_FALSE(driver_.metadata(web, VIR_DOMAIN_METADATA_TITLE, "", VIR_DOMAIN_AFFECT_LIVE));
  ASSERT_TRUE(
      driver_.set_metadata(kCaller, web, VIR_DOMAIN_METADATA_ELEMENT, "<a:b xmlns:a=\"urn:a\"/>", "urn:a", 0));
  EXPECT_EQ(*driver_.metadata(web, VIR_DOMAIN_METADATA_ELEMENT, "urn:a", 0), "<a:b xmlns:a=\"urn:a\"/>");
  ASSERT_TRUE(driver_.set_metadata(kCaller, web, VIR_DOMAIN_METADATA_ELEMENT, std::nullopt, "urn:a", 0));
  EXPECT_FALSE(driver_.metadata(web, VIR_DOMAIN_METADATA_ELEMENT, "urn:a", 0));
  EXPECT_THAT(take_events(), ElementsAre("web METADATA 1", "web METADATA 2urn:a", "web METADATA 2urn:a"));
}

// Until `wanted` bytes are there or the other side ended; fails the test after five seconds of silence.
std::string read_console(const SocketFd& fd, std::size_t wanted) {
  std::string text;
  char buffer[256];
  while (text.size() < wanted) {
    pollfd waiting{fd.get(), POLLIN, 0};
    if (::poll(&waiting, 1, 5000) <= 0) break;
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got <= 0) break;
    text.append(buffer, static_cast<std::size_t>(got));
  }
  return text;
}

TEST_F(TestDriverTest, ConsoleGreetsEchoesAndEndsWithTheDomain) {
  const Uuid web = define("web");
  EXPECT_EQ(driver_.open_console(kCaller, web, "", 0).error().text, "domain is not running");
  ASSERT_TRUE(driver_.create(kCaller, web, {}, 0));
  EXPECT_THAT(driver_.open_console(kCaller, web, "nope", 0).error().text, HasSubstr("cannot find console device"));
  auto first = driver_.open_console(kCaller, web, "console0", 0);
  ASSERT_TRUE(first) << first.error().text;
  EXPECT_EQ(read_console(*first, 17), "Connected to web\n");
  ASSERT_EQ(::write(first->get(), "hello", 5), 5);
  EXPECT_EQ(read_console(*first, 5), "hello");
  EXPECT_EQ(driver_.open_console(kCaller, web, "", 0).error().code, VIR_ERR_OPERATION_FAILED);
  auto second = driver_.open_console(kCaller, web, "", VIR_DOMAIN_CONSOLE_FORCE);
  ASSERT_TRUE(second);
  EXPECT_EQ(read_console(*first, 1), "") << "the first session has ended";
  EXPECT_EQ(read_console(*second, 17), "Connected to web\n");
  ASSERT_TRUE(driver_.destroy(kCaller, web, 0));
  EXPECT_EQ(read_console(*second, 1), "");
}

TEST_F(TestDriverTest, ManyThreadsLeaveOneDomainOfEachName) {
  std::vector<std::jthread> threads;
  for (int worker = 0; worker < 8; ++worker) {
    threads.emplace_back([this] {
      for (int i = 0; i < 50; ++i) {
        auto ref = driver_.define(kCaller, sample_def("d" + std::to_string(i % 5)), 0);
        auto found = ref ? std::move(ref) : driver_.lookup_by_name("d" + std::to_string(i % 5));
        if (!found) continue;
        (void)driver_.create(kCaller, found->uuid, {}, 0);
        (void)driver_.all_stats({}, 0, 0);
        (void)driver_.destroy(kCaller, found->uuid, 0);
        (void)driver_.undefine(kCaller, found->uuid, 0);
      }
    });
  }
  threads.clear();
  EXPECT_THAT(*driver_.list_domains(), IsEmpty());
}

TEST_F(TestDriverTest, HostFactsAgreeWithThemselves) {
  const NodeFacts facts = *driver_.node_facts();
  EXPECT_EQ(facts.cpus, facts.nodes * facts.sockets * facts.cores * facts.threads);
  std::size_t cpus = 0;
  std::uint64_t memory_kib = 0;
  for (const NumaCell& cell : facts.cells) cpus += cell.cpus.size(), memory_kib += cell.memory_kib;
  EXPECT_EQ(cpus, facts.cpus);
  EXPECT_EQ(memory_kib, facts.memory_kib);
  EXPECT_EQ(driver_.node_cells_free_memory_bytes(0, 10)->size(), 2U);
  EXPECT_EQ(driver_.node_cells_free_memory_bytes(2, 1).error().code, VIR_ERR_INVALID_ARG);
  EXPECT_EQ(driver_.security_model()->model, "none");
}

}  // namespace
}  // namespace virtuserns::test_driver
