#include "driver/rpc/table.h"

#include <gtest/gtest.h>

#include <set>

#include "driver/rpc/dispatch.h"
#include "driver/rpc/error.h"
#include "driver/rpc/protocol.h"
#include "tests/support/fake_driver.h"

namespace virtuserns::rpc {
namespace {

constexpr std::int32_t kLastProcedure = 443;

// The 51 numbers that are events, and the three of SASL: nobody may call them.
const std::set<std::int32_t> kNotCallable = {67,  68,  69,  107, 169, 170, 171, 172, 173, 195, 224, 241, 248, 268,
                                             269, 270, 276, 292, 311, 315, 318, 319, 320, 321, 322, 323, 324, 325,
                                             326, 327, 328, 329, 330, 331, 332, 333, 339, 346, 348, 354, 359, 362,
                                             363, 367, 370, 373, 376, 377, 379, 382, 383, 385, 423, 438};

TEST(Table, HasEveryProcedureOfLibvirt900) {
  for (std::int32_t n = 1; n <= kLastProcedure; ++n) {
    const Row* row = find_row(kRemoteProgram, n);
    EXPECT_EQ(row != nullptr, !kNotCallable.contains(n)) << n;
    if (row == nullptr) continue;
    EXPECT_EQ(row->number, n);
    EXPECT_TRUE(std::string(row->name).starts_with("vir")) << row->name;
  }
  EXPECT_EQ(find_row(kRemoteProgram, 0), nullptr);
  EXPECT_EQ(find_row(kRemoteProgram, -1), nullptr);
  EXPECT_EQ(find_row(kRemoteProgram, kLastProcedure + 1), nullptr);
  EXPECT_EQ(supported_rows().size(), 115U);
  EXPECT_EQ(supported_rows().size() + unsupported_rows().size() + kNotCallable.size(), 443U);
}

TEST(Table, RowsAreUniqueAndSorted) {
  std::set<std::int32_t> numbers;
  std::set<std::string> names;
  for (const Row& row : supported_rows()) {
    EXPECT_TRUE(numbers.empty() || row.number > *numbers.rbegin());
    EXPECT_TRUE(numbers.insert(row.number).second) << row.number;
    EXPECT_NE(row.run, nullptr) << row.name;
    (void)names.insert(row.name);
  }
  for (const UnsupportedRow& row : unsupported_rows()) EXPECT_TRUE(numbers.insert(row.number).second) << row.number;
}

TEST(Table, WhatChangesSomethingIsReadWriteOnly) {
  // libvirt's own checks: 44 of the procedures that are served, among them these surprising ones.
  std::size_t writes = 0;
  for (const Row& row : supported_rows()) writes += row.access == Access::kWrite;
  EXPECT_EQ(writes, 44U);
  for (const std::int32_t n : {342, 135, 136, 277, 201, 10, 12, 35, 264, 309, 310})
    EXPECT_EQ(find_row(kRemoteProgram, n)->access, Access::kWrite) << n;
  EXPECT_EQ(find_row(kLxcProgram, 1)->access, Access::kWrite);
  EXPECT_EQ(find_row(kUsernsProgram, kExecProcedure)->access, Access::kWrite);
  EXPECT_EQ(find_row(kUsernsProgram, 2), nullptr);
  for (const std::int32_t n : {1, 2, 14, 60, 66, 70, 273, 316, 419})
    EXPECT_EQ(find_row(kRemoteProgram, n)->access, Access::kRead) << n;
}

TEST(Table, OnlyAuthenticationNeedsNone) {
  for (const Row& row : supported_rows()) {
    const bool is_auth = row.number == 66 || row.number == 70 || row.number == 2,
               is_opening = row.number == 1 || row.number == 60;
    EXPECT_EQ(row.needs, is_auth ? Needs::kNothing : is_opening ? Needs::kAuth : Needs::kOpen) << row.name;
  }
}

class TableCalls : public ::testing::Test {
 protected:
  std::unique_ptr<Session> session(bool read_only) {
    auto session = std::make_unique<Session>(host_, Peer{1000, 1000, 1, 1, {}}, 9, read_only, AuthMethod::kNone);
    EXPECT_TRUE(session->open("userns:///system", false));
    return session;
  }
  Error ask(Session& session, std::int32_t procedure, std::vector<std::uint8_t> payload) {
    const Header header{kRemoteProgram, 1, procedure, MessageType::kCall, 1, Status::kOk};
    const auto row = admit(session, header);
    if (!row) return {row.error().code, 0, *make_remote_error(row.error()).message};
    const Answer answer = serve(session, **row, Message{header, std::move(payload), {}});
    const auto reply = std::span(answer.frame.bytes).subspan(kLengthBytes);
    const auto head = xdr::decode<Header>(reply);
    EXPECT_TRUE(head);
    if (!head || head->status == Status::kOk) return {0, 0, ""};
    const auto error = xdr::decode<wire::RemoteError>(reply.subspan(kHeaderBytes));
    EXPECT_TRUE(error);
    return {error->code, 0, error->message.value_or("")};
  }
  test::FakeDriver driver_;
  SessionHost host_{{{"userns", &driver_}}, false};
};

TEST_F(TableCalls, GarbageIsAnErrorAndNeverACrash) {
  auto s = session(false);
  std::uint32_t seed = 12345;
  for (std::int32_t n = 3; n <= kLastProcedure; ++n)
    for (std::size_t size = 0; size < 160; size += 4) {
      std::vector<std::uint8_t> payload(size);
      for (auto& byte : payload) byte = static_cast<std::uint8_t>((seed = seed * 1664525 + 1013904223) >> 24);
      (void)ask(*s, n, payload);
      for (auto& byte : payload) byte = 0xff;
      (void)ask(*s, n, payload);
    }
}

TEST_F(TableCalls, EveryPrefixOfArgumentsIsRefused) {
  auto s = session(false);
  const auto full = xdr::encode(wire::SetMetadataArgs{test::FakeDriver::ref(1), 2, "<a/>", "k", "u", 0});
  for (std::size_t n = 0; n < full.size(); n += 4)
    EXPECT_EQ(ask(*s, 264, {full.begin(), full.begin() + static_cast<std::ptrdiff_t>(n)}).code, VIR_ERR_RPC) << n;
}

TEST_F(TableCalls, F29ReadOnlyIsDeniedBeforeArgumentsAreLookedAt) {
  auto s = session(true);
  const int before = driver_.calls_;
  for (std::int32_t n = 1; n <= kLastProcedure; ++n) {
    const Row* row = find_row(kRemoteProgram, n);
    if (row == nullptr || row->access != Access::kWrite) continue;
    // A decoder would say VIR_ERR_RPC to no arguments at all.
    const Error error = ask(*s, n, {});
    EXPECT_EQ(error.code, VIR_ERR_OPERATION_DENIED) << row->name;
    EXPECT_NE(error.text.find(row->name), std::string::npos);
  }
  EXPECT_EQ(driver_.calls_, before);
}

TEST_F(TableCalls, F29ConditionalOnes) {
  auto ro = session(true), rw = session(false);
  const auto secure = xdr::encode(wire::DomainFlagsArgs{test::FakeDriver::ref(1), VIR_DOMAIN_XML_SECURE});
  const auto plain = xdr::encode(wire::DomainFlagsArgs{test::FakeDriver::ref(1), VIR_DOMAIN_XML_INACTIVE});
  const int before = driver_.calls_;
  EXPECT_EQ(ask(*ro, 14, secure).code, VIR_ERR_OPERATION_DENIED);
  EXPECT_EQ(ask(*ro, 200, xdr::encode(wire::DomainFlagsArgs{test::FakeDriver::ref(1), VIR_DOMAIN_VCPU_GUEST})).code,
            VIR_ERR_OPERATION_DENIED);
  EXPECT_EQ(
      ask(*ro, 353,
          xdr::encode(wire::AddressesArgs{test::FakeDriver::ref(1), VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0}))
          .code,
      VIR_ERR_OPERATION_DENIED);
  EXPECT_EQ(driver_.calls_, before);
  EXPECT_EQ(ask(*ro, 14, plain).code, 0);
  EXPECT_EQ(ask(*rw, 14, secure).code, 0);
}

TEST_F(TableCalls, AnswersInLibvirtsWords) {
  auto s = session(false);
  EXPECT_EQ(ask(*s, 52, {}).text, "this function is not supported by the connection driver: virConnectNumOfNetworks");
  EXPECT_EQ(ask(*s, 444, {}).text, "unknown procedure: 444");
  EXPECT_EQ(ask(*s, 318, {}).code, VIR_ERR_RPC);
  EXPECT_EQ(ask(*s, 23, xdr::encode(wire::LookupNameArgs{"nobody"})).text,
            "Domain not found: no domain with matching name");
}

TEST_F(TableCalls, NothingIsServedBeforeOpenOrAuthentication) {
  Session closed(host_, Peer{1000, 1000, 1, 1, {}}, 1, false, AuthMethod::kNone);
  Session stranger(host_, Peer{1000, 1000, 1, 1, {}}, 2, false, AuthMethod::kPolkit);
  for (std::int32_t n = 1; n <= kLastProcedure; ++n) {
    const Row* row = find_row(kRemoteProgram, n);
    if (row == nullptr) continue;
    if (row->needs == Needs::kOpen) {
      EXPECT_NE(ask(closed, n, {}).code, 0) << n;
    }
    if (row->needs != Needs::kNothing) {
      EXPECT_EQ(ask(stranger, n, {}).code, VIR_ERR_RPC) << n;
    }
  }
  EXPECT_EQ(driver_.calls_, 0);
}

}  // namespace
}  // namespace virtuserns::rpc
