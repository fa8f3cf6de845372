// Requests as such: what answer() says before, and instead of, asking the hypervisor. The connection is to nothing.
#include "driver/compute/methods.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#include "tests/unit/compute/sample.h"

namespace virtuserns::compute {
namespace {

using testing::HasSubstr;

class Methods : public testing::Test {
 protected:
  Methods() : images_(Bases::open(store()).value()) {
    settings_.state = dir_.path() + "/state";
    hypervisor_.emplace("userns+unix:///system?socket=" + dir_.path() + "/none", std::chrono::milliseconds(0),
                        [](const DomainEvent&) {});
    guests_ = make_guests(settings_, images_, *hypervisor_).value();
    compute_.emplace(settings_, *hypervisor_, *guests_, images_);
    EXPECT_TRUE(compute_->load());
    host_.emplace(*compute_);
  }
  [[nodiscard]] StoreOptions store() const {
    StoreOptions options;
    options.folder = dir_.path() + "/images";
    options.program = "/bin/false";
    return options;
  }
  [[nodiscard]] Json ask(const std::string& text) { return Json::parse(answer({*compute_, *host_}, {}, text).text); }
  [[nodiscard]] Json call(const std::string& method, const Json& params = Json::object()) {
    return ask(Json{{"jsonrpc", "2.0"}, {"id", 7}, {"method", method}, {"params", params}}.dump());
  }
  [[nodiscard]] std::string kind(const std::string& method, const Json& params) {
    return call(method, params)["error"]["data"]["kind"];
  }

  virtuserns::test::TempDir dir_;
  Settings settings_;
  Bases images_;
  std::optional<Hypervisor> hypervisor_;
  std::unique_ptr<Guests> guests_;
  std::optional<Compute> compute_;
  std::optional<Host> host_;
};

TEST_F(Methods, AGoodOne) {
  const auto said = call("api.version");
  EXPECT_EQ(said["jsonrpc"], "2.0");
  EXPECT_EQ(said["id"], 7);
  EXPECT_EQ(said["result"]["version"], kApiVersion);
  EXPECT_FALSE(said.contains("error"));
}

TEST_F(Methods, WhatIsNoJsonOrNoRequest) {
  for (const char* text : {"", "{", "\xff", "{} {}", R"({"id": 1, "id": 2})"}) {
    const auto said = ask(text);
    EXPECT_EQ(said["error"]["code"], -32700) << text;
    EXPECT_TRUE(said["id"].is_null());
    EXPECT_FALSE(said["error"].contains("data"));
  }
  for (const char* text : {"[]", "1", "null", R"([{"jsonrpc": "2.0", "id": 1, "method": "api.version"}])",
                           R"({"id": 1})", R"({"jsonrpc": "1.0", "id": 1, "method": "api.version"})",
                           R"({"jsonrpc": "2.0", "id": 1, "method": 5})", R"({"jsonrpc": "2.0", "id": 1})"})
    EXPECT_EQ(ask(text)["error"]["code"], -32600) << text;
}

TEST_F(Methods, IdsAreNumbersOrText) {
  for (const Json& id : {Json(0), Json(-5), Json("x"), Json("")}) {
    const auto said = ask(Json{{"jsonrpc", "2.0"}, {"id", id}, {"method", "api.version"}}.dump());
    EXPECT_EQ(said["id"], id);
    EXPECT_TRUE(said.contains("result"));
  }
  // A notification asks for nothing that could be done and not be answered.
  for (const Json& id : {Json(), Json(1.5), Json(true), Json::array(), Json::object()})
    EXPECT_EQ(ask(Json{{"jsonrpc", "2.0"}, {"id", id}, {"method", "api.version"}}.dump())["error"]["code"], -32600);
  EXPECT_EQ(ask(R"({"jsonrpc": "2.0", "method": "api.version"})")["error"]["code"], -32600);
}

TEST_F(Methods, UnknownMethodsAndParameters) {
  EXPECT_EQ(call("no.such")["error"]["code"], -32601);
  EXPECT_THAT(call("api.version\n")["error"]["message"].get<std::string>(), HasSubstr("no method"));
  EXPECT_EQ(call("api.version", {{"x", 1}})["error"]["code"], -32602);
  EXPECT_EQ(call("api.version", Json::array())["error"]["code"], -32602);
  EXPECT_EQ(call("api.version", "x")["error"]["code"], -32602);
  EXPECT_THAT(call("instance.info", {{"uuid", test::kUuid}, {"more", 1}})["error"]["message"].get<std::string>(),
              HasSubstr("no parameter 'more'"));
}

TEST_F(Methods, ErrorsHaveKinds) {
  EXPECT_EQ(kind("instance.info", {{"uuid", "x"}}), "invalid");
  EXPECT_EQ(kind("instance.info", Json::object()), "invalid");
  EXPECT_EQ(kind("instance.info", {{"uuid", test::kUuid}}), "instance-not-found");
  EXPECT_EQ(kind("instance.reboot", {{"uuid", test::kUuid}, {"type", "warm"}}), "invalid");
  EXPECT_EQ(kind("image.add", {{"key", "k"}, {"format", "iso"}, {"path", "/x"}}), "image-refused");
  EXPECT_EQ(kind("image.add", {{"key", "k"}, {"format", "raw"}, {"path", "/nonexistent"}}), "invalid");
  EXPECT_EQ(
      kind("instance.spawn", {{"instance", test::sample_instance()}, {"image", {{"key", "k"}, {"format", "raw"}}}}),
      "image-missing");
  EXPECT_EQ(call("instance.destroy", {{"uuid", test::kUuid}})["result"], Json::object());
  EXPECT_EQ(call("image.has", {{"key", "k"}})["result"], Json({{"present", false}}));
}

TEST_F(Methods, WithoutADaemonOneMayTryAgain) {
  const auto said = call("instance.list")["error"]["data"];
  EXPECT_EQ(said["kind"], "unavailable");
  EXPECT_EQ(said["retryable"], true);
}

TEST_F(Methods, EventsAreNotifications) {
  const auto event = Json::parse(format_event({test::kUuid, "started"}, 5));
  EXPECT_EQ(event, (Json{{"jsonrpc", "2.0"},
                         {"method", "event"},
                         {"params", {{"uuid", test::kUuid}, {"event", "started"}, {"at", 5}}}}));
  EXPECT_TRUE(
      answer({*compute_, *host_}, {}, R"({"jsonrpc": "2.0", "id": 1, "method": "events.subscribe"})").wants_events);
}

}  // namespace
}  // namespace virtuserns::compute
