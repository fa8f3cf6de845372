#include "driver/rpc/access.h"

#include <gtest/gtest.h>
#include <libvirt/libvirt.h>

#include "conf/domain_objects.h"
#include "driver/rpc/dispatch.h"
#include "driver/rpc/error.h"
#include "driver/rpc/protocol.h"
#include "driver/rpc/table.h"
#include "tests/support/fake_driver.h"

namespace virtuserns::rpc {
namespace {

constexpr uid_t kAnna = 987'654'321;  // no account here: her name is her number
constexpr gid_t kAdmins = 4711;

// fake1 is anna's, fake2 somebody else's.
class OwnedDriver : public test::FakeDriver {
 public:
  using FakeDriver::FakeDriver;
  static OwnerDef by_uid(uid_t uid) { return {"", uid, false}; }
  Result<std::optional<OwnerDef>> owner(const Uuid& uuid) override {
    ++asked_;
    if (uuid == ref(1).uuid) return std::optional(by_uid(kAnna));
    if (uuid == ref(2).uuid) return std::optional(by_uid(kAnna + 1));
    return no_domain_with_uuid(uuid);
  }
  Result<std::vector<DomainSummary>> list_domains() override {
    auto list = TRY(FakeDriver::list_domains());
    list[0].owner = by_uid(kAnna);
    list[1].owner = by_uid(kAnna + 1);
    return list;
  }
  int asked_ = 0;
};

class AccessTest : public ::testing::Test {
 protected:
  std::unique_ptr<Session> session(uid_t uid, gid_t gid = 1000, std::vector<gid_t> groups = {},
                                   bool read_only = false) {
    auto made = std::make_unique<Session>(host_, Peer{uid, gid, 1, 1, {}, std::move(groups)}, 9, read_only,
                                          AuthMethod::kNone);
    EXPECT_TRUE(made->open("userns:///system", false));
    return made;
  }
  // The code of the answer, 0 when there is no error.
  int ask(Session& session, std::uint32_t program, std::int32_t procedure, const std::vector<std::uint8_t>& payload) {
    const Header header{program, 1, procedure, MessageType::kCall, 1, Status::kOk};
    const auto row = admit(session, header);
    if (!row) return row.error().code;
    const Answer answer = serve(session, **row, Message{header, payload, {}});
    const auto reply = std::span(answer.frame.bytes).subspan(kLengthBytes);
    const auto head = xdr::decode<Header>(reply);
    if (!head || head->status == Status::kOk) return 0;
    return xdr::decode<wire::RemoteError>(reply.subspan(kHeaderBytes))->code;
  }
  static std::vector<std::uint8_t> naming(int n) {
    auto payload = xdr::encode(wire::DomainArgs{test::FakeDriver::ref(n)});
    payload.resize(payload.size() + 256);  // whatever follows is zero: no flags, no text, empty lists
    return payload;
  }
  template <class Visit>
  static void each_row(const Visit& visit) {
    for (const Row& row : supported_rows()) visit(kRemoteProgram, row);
    visit(kLxcProgram, *find_row(kLxcProgram, 1));
    visit(kUsernsProgram, *find_row(kUsernsProgram, kExecProcedure));
  }
  OwnedDriver driver_;
  SessionHost host_{{{"userns", &driver_}}, false, true, {kAdmins}, nullptr};
};

TEST_F(AccessTest, EveryProcedureHasARight) {
  each_row([](std::uint32_t, const Row& row) { EXPECT_NE(row.right.object, Object::kNone) << row.name; });
  EXPECT_FALSE(is_for_owners(Row{}.right));
}

// Each one that names a domain, by the uuid of somebody else's and of none: the same answer, and nothing is asked of the driver but
// whose it is.
TEST_F(AccessTest, AnothersDomainIsNoneForEachProcedure) {
  const auto anna = session(kAnna);
  std::size_t tried = 0;
  each_row([&](std::uint32_t program, const Row& row) {
    if (row.right.object != Object::kDomain) return;
    const int calls = driver_.calls_, asked = driver_.asked_;
    const bool is_for_her = is_for_owners(row.right);
    for (const int n : {2, 3})
      EXPECT_EQ(ask(*anna, program, row.number, naming(n)), is_for_her ? VIR_ERR_NO_DOMAIN : VIR_ERR_ACCESS_DENIED)
          << row.name;
    EXPECT_EQ(driver_.calls_, calls) << row.name;
    EXPECT_EQ(driver_.asked_, asked + (is_for_her ? 2 : 0)) << row.name;
    ++tried;
  });
  EXPECT_EQ(tried, 70U);
}

TEST_F(AccessTest, OnesOwnIsReached) {
  const auto anna = session(kAnna);
  each_row([&](std::uint32_t program, const Row& row) {
    if (row.right.object != Object::kDomain || !is_for_owners(row.right)) return;
    const int code = ask(*anna, program, row.number, naming(1));
    EXPECT_NE(code, VIR_ERR_NO_DOMAIN) << row.name;
    EXPECT_NE(code, VIR_ERR_ACCESS_DENIED) << row.name;
  });
}

TEST_F(AccessTest, ListsAndLookupsShowOnesOwn) {
  for (const bool read_only : {false, true}) {
    const auto anna = session(kAnna, 1000, {}, read_only);
    Call call{*anna, *find_row(kRemoteProgram, 273), &driver_, anna->caller(), {}, {}, {}};
    const auto list = visible_domains(call);
    ASSERT_EQ(list->size(), 1U);
    EXPECT_EQ((*list)[0].ref.name, "fake1");
    EXPECT_EQ(ask(*anna, kRemoteProgram, 23, xdr::encode(wire::LookupNameArgs{"fake1"})), 0);
    const Error missing = no_domain_with_name("fake2");
    EXPECT_EQ(visible_or(call, test::FakeDriver::ref(2), missing).error().text, missing.text);
  }
}

TEST_F(AccessTest, AdministratorsAreRootAndTheGroups) {
  for (const auto& one : {session(0), session(kAnna, kAdmins), session(kAnna, 1000, {1, kAdmins})}) {
    EXPECT_FALSE(one->caller().owns_only);
    EXPECT_NE(ask(*one, kRemoteProgram, 16, naming(2)), VIR_ERR_NO_DOMAIN);
  }
  EXPECT_TRUE(session(kAnna, 1000, {1, kAdmins + 1})->caller().owns_only);
}

TEST_F(AccessTest, WhomRootSpeaksForHasThatUsersRights) {
  const auto root = session(0);
  ASSERT_TRUE(root->set_identity({{VIR_CONNECT_IDENTITY_UNIX_USER_ID, std::uint64_t{kAnna}}}));
  EXPECT_TRUE(root->caller().owns_only);
  EXPECT_NE(root->caller().user_name, "root");
  EXPECT_EQ(ask(*root, kRemoteProgram, 16, naming(2)), VIR_ERR_NO_DOMAIN);
  const auto anna = session(kAnna);
  EXPECT_FALSE(anna->set_identity({{VIR_CONNECT_IDENTITY_UNIX_USER_ID, std::uint64_t{0}}}));
  ASSERT_TRUE(anna->set_identity({{VIR_CONNECT_IDENTITY_USER_NAME, std::string("elsa")}}));
  EXPECT_EQ(anna->caller().user_name, std::to_string(kAnna));
}

TEST_F(AccessTest, WithoutTheDriverEverybodyIsOne) {
  host_.checks_owner = false;
  EXPECT_FALSE(session(kAnna)->caller().owns_only);
}

}  // namespace
}  // namespace virtuserns::rpc
