#include "conf/daemon_config.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "conf/paths.h"
#include "conf/uuid.h"

namespace virtuserns {
namespace {

std::string error_of(const std::string& text) {
  const auto config = parse_daemon_config(text, "virtusernsd.conf");
  return config ? "" : config.error().text;
}

TEST(DaemonConfig, LibvirtdSyntax) {
  const auto config = parse_daemon_config(
      "# comment\n"
      "unix_sock_group = \"libvirt\"\n"
      "unix_sock_ro_perms = \"0777\"   # trailing\n"
      "auth_unix_rw = \"polkit\"\n"
      "max_clients=7\n"
      "keepalive_interval = -1\n"
      "log_filters=\"1:rpc 3:userns\"\n"
      "id_range_last = 4000000000\n"
      "allow_enter_namespace = 1\n",
      "x");
  ASSERT_TRUE(config) << config.error().text;
  EXPECT_EQ(config->unix_sock_group, "libvirt");
  EXPECT_EQ(config->unix_sock_ro_perms, 0777U);
  EXPECT_EQ(config->auth_unix_rw, "polkit");
  EXPECT_EQ(config->max_clients, 7U);
  EXPECT_EQ(config->keepalive_interval, -1);
  EXPECT_EQ(config->id_range_last, 4'000'000'000U);
  EXPECT_TRUE(config->allow_enter_namespace);
}

TEST(DaemonConfig, IdsPerDomainOrProject) {
  EXPECT_EQ(parse_daemon_config("", "x")->ids_per, "domain");
  EXPECT_EQ(parse_daemon_config("ids_per = \"project\"", "x")->ids_per, "project");
  EXPECT_EQ(error_of("ids_per = \"tenant\""),
            "virtusernsd.conf:1: key 'ids_per' needs one of \"domain\", \"project\"");
}

TEST(DaemonConfig, LinksOfUsers) {
  const auto config = parse_daemon_config("\nuser_links = [ \"anna:br0:10\",\n  \"@users:br-lan.7:100\" ]\n", "x");
  ASSERT_TRUE(config) << config.error().text;
  ASSERT_EQ(config->user_links.size(), 2U);
  const auto &anna = config->user_links[0], &users = config->user_links[1];
  EXPECT_EQ(std::tuple(anna.who, anna.is_group, anna.bridge, anna.limit, anna.where),
            std::tuple("anna", false, "br0", 10U, "x:2: 'anna:br0:10'"));
  EXPECT_EQ(std::tuple(users.who, users.is_group, users.bridge, users.limit, users.where),
            std::tuple("users", true, "br-lan.7", 100U, "x:3: '@users:br-lan.7:100'"));
  EXPECT_EQ(error_of("\nuser_links = [ 'anna:br0:0' ]"),
            "virtusernsd.conf:2: key 'user_links' has 'anna:br0:0' in it, but needs \"USER:BRIDGE:N\" or "
            "\"@GROUP:BRIDGE:N\", with N from 1 to 100");
  for (const char* bad : {"", "anna", "anna:br0", "anna:br0:101", "anna:br0:-1", "anna:br0:1:2", ":br0:1", "@:br0:1",
                          "anna::1", "anna:br 0:1", "anna:br/0:1", "anna:0123456789abcdef:1", "anna:br0:99999999999"})
    EXPECT_NE(error_of(std::string("user_links = [ '") + bad + "' ]"), "") << bad;
  EXPECT_NE(error_of("user_links = 'anna:br0:1'").find("needs a list"), std::string::npos);
  EXPECT_NE(error_of("user_links = [ 1 ]").find("something else"), std::string::npos);
}

TEST(DaemonConfig, ModeFollowsGroupAndPolkit) {
  EXPECT_EQ(parse_daemon_config("", "x")->unix_sock_rw_perms, 0700U);
  EXPECT_EQ(parse_daemon_config("unix_sock_group = \"g\"", "x")->unix_sock_rw_perms, 0770U);
  EXPECT_EQ(parse_daemon_config("auth_unix_rw = \"polkit\"", "x")->unix_sock_rw_perms, 0777U);
  EXPECT_EQ(parse_daemon_config("unix_sock_rw_perms = \"0750\"\nunix_sock_group = \"g\"", "x")->unix_sock_rw_perms,
            0750U);
}

TEST(DaemonConfig, ErrorsNameFileLineAndKey) {
  EXPECT_EQ(error_of("\n\nmax_clientz = 5\n"), "virtusernsd.conf:3: unknown key 'max_clientz'");
  EXPECT_EQ(error_of("max_clients = \"5\"\n"),
            "virtusernsd.conf:1: key 'max_clients' needs a number from 1 to 1000000");
  EXPECT_EQ(error_of("max_clients = 0\n").substr(0, 21), "virtusernsd.conf:1: k");
  EXPECT_EQ(error_of("\nauth_unix_ro = \"sasl\""),
            "virtusernsd.conf:2: key 'auth_unix_ro' needs one of \"none\", \"polkit\"");
  EXPECT_EQ(error_of("unix_sock_rw_perms = \"0999\"").substr(0, 19), "virtusernsd.conf:1:");
  EXPECT_EQ(error_of("host_uuid = 5").substr(0, 19), "virtusernsd.conf:1:");
  EXPECT_EQ(error_of("\n\n\nmax_clients = = 5").substr(0, 19), "virtusernsd.conf:4:");
  EXPECT_EQ(error_of("max_clients = 5\nmax_clients = 6").substr(0, 19), "virtusernsd.conf:2:");
  EXPECT_NE(error_of("min_workers = 10\nmax_workers = 5"), "");
}

// The parser would end the program.
TEST(DaemonConfig, WhatIsNoTomlIsAnErrorOfItsLine) {
  std::string deep = "a";
  for (int i = 0; i < 200'000; ++i) deep += ".a";
  for (const auto& bad :
       {std::string("[[.a]]"), std::string("a=1979-05-27T/f=-2:00.999-07:00"), std::string("a = [}"),
        std::string("a = }"), std::string("\xcb\x8b = 1"), std::string("a = 1\"\xcb\x8b"),
        "a = " + std::string(100'000, '['), deep + " = 1", "[" + deep + "]", "a = { " + deep + " = 1 }"})
    EXPECT_EQ(error_of("max_clients = 5\n\n" + bad + "\n").substr(0, 20), "virtusernsd.conf:3: ")
        << bad.substr(0, 40);
  // Dots in strings and comments are none of keys.
  const std::string dots(1000, '.');
  for (const auto& good : {"log_outputs = \"\\\"" + dots + "\"", "log_outputs = '" + dots + "'",
                           "log_outputs = \"\"\"" + dots + "\"\"\"\"", "log_outputs = '" + dots + "' # " + dots,
                           std::string("log_outputs = \"\" # \xc3\xa4")})
    EXPECT_EQ(error_of(good), "") << good.substr(0, 40);
}

TEST(DaemonConfig, AccessIsByListsOfNames) {
  const auto config = parse_daemon_config(
      "access_drivers = [ \"owner\" ]\naccess_admin_groups = [ \"a\", \"b\" ]\nmax_domains_per_owner = 3\n", "x");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->access_drivers, std::vector<std::string>{"owner"});
  EXPECT_EQ(config->access_admin_groups, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(config->max_domains_per_owner, 3u);
  EXPECT_TRUE(DaemonConfig().access_drivers.empty());
  EXPECT_NE(error_of("access_drivers = [ \"polkit\" ]").find("knows no 'polkit', only \"owner\""), std::string::npos);
  EXPECT_NE(error_of("access_drivers = \"owner\"").find("needs a list"), std::string::npos);
  EXPECT_NE(error_of("access_admin_groups = [ 1 ]").find("needs a list"), std::string::npos);
  EXPECT_NE(error_of("access_admin_groups = [ \"\" ]").find("needs a list"), std::string::npos);
}

TEST(DaemonConfig, MissingFileIsTheDefaults) {
  EXPECT_TRUE(read_daemon_config("/nonexistent/virtusernsd.conf"));
  EXPECT_FALSE(read_daemon_config("/dev/null"));
}

TEST(Paths, SessionFollowsXdg) {
  ::setenv("HOME", "/home/u", 1);
  ::setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
  ::unsetenv("XDG_CONFIG_HOME");
  ::setenv("XDG_STATE_HOME", "relative/is/ignored", 1);
  ::unsetenv("XDG_CACHE_HOME");
  Paths paths = session_paths();
  EXPECT_EQ(paths.run, "/run/user/1/libvirt");
  EXPECT_EQ(paths.definitions, "/home/u/.config/libvirt/userns");
  EXPECT_EQ(paths.state, "/home/u/.local/state/libvirt/userns");
  // What runs may outlive a logout, and the runtime directory does not.
  EXPECT_EQ(paths.driver_run.substr(0, paths.driver_run.rfind('/')), paths.state + "/boots");
  EXPECT_TRUE(parse_uuid(paths.driver_run.substr(paths.driver_run.rfind('/') + 1)));
  EXPECT_TRUE(paths.is_session);
  ::unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(session_paths().run, "/home/u/.cache/libvirt");
}

}  // namespace
}  // namespace virtuserns
