// libvirtd.conf's syntax (key = value, "strings", [lists], # comments) is a subset of TOML, with two exceptions that
// TOML refuses and nobody misses: octal numbers with a bare leading zero, and strings over several lines. Modes are
// strings there as here ("0770").
#include "conf/daemon_config.h"

#include <algorithm>
#include <functional>
#include <map>
#include <sstream>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/toml.h"

namespace virtuserns {
namespace {

// Takes a value over, or says what is wrong with it.
using Take = std::function<Result<void>(DaemonConfig&, const toml::node&)>;

Error wrong(const std::string& what) { return fail(VIR_ERR_CONF_SYNTAX, what); }

Take text(std::string DaemonConfig::*field) {
  return [field](DaemonConfig& config, const toml::node& node) -> Result<void> {
    const auto value = node.value_exact<std::string>();
    if (!value) return wrong("needs a string");
    config.*field = *value;
    return {};
  };
}

Take choice(std::string DaemonConfig::*field, std::vector<std::string> choices) {
  return [field, choices](DaemonConfig& config, const toml::node& node) -> Result<void> {
    const auto value = node.value_exact<std::string>();
    for (const std::string& known : choices)
      if (value && *value == known) {
        config.*field = known;
        return {};
      }
    return wrong("needs one of \"" + join(choices, "\", \"") + "\"");
  };
}

// Each of them is one of `choices`, when there are any.
Take list(std::vector<std::string> DaemonConfig::*field, std::vector<std::string> choices = {}) {
  return [field, choices](DaemonConfig& config, const toml::node& node) -> Result<void> {
    const auto* array = node.as_array();
    if (!array) return wrong("needs a list of strings in brackets");
    std::vector<std::string> values;
    for (const auto& item : *array) {
      const auto value = item.value_exact<std::string>();
      if (!value || value->empty()) return wrong("needs a list of strings in brackets");
      if (!choices.empty() && std::find(choices.begin(), choices.end(), *value) == choices.end())
        return wrong("knows no " + quote(*value) + ", only \"" + join(choices, "\", \"") + "\"");
      values.push_back(*value);
    }
    config.*field = std::move(values);
    return {};
  };
}

template <class T>
Take number(T DaemonConfig::*field, std::int64_t least, std::int64_t most) {
  return [field, least, most](DaemonConfig& config, const toml::node& node) -> Result<void> {
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < least || *value > most)
      return wrong("needs a number from " + std::to_string(least) + " to " + std::to_string(most));
    config.*field = static_cast<T>(*value);
    return {};
  };
}

// libvirtd.conf writes booleans as 0 and 1.
Take flag(bool DaemonConfig::*field) {
  return [field](DaemonConfig& config, const toml::node& node) -> Result<void> {
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < 0 || *value > 1) return wrong("needs 0 or 1");
    config.*field = *value == 1;
    return {};
  };
}

Take mode(unsigned DaemonConfig::*field) {
  return [field](DaemonConfig& config, const toml::node& node) -> Result<void> {
    const auto value = node.value_exact<std::string>();
    const auto bits = value ? parse_number<unsigned>(*value, 8) : std::nullopt;
    if (!bits || *bits > 0777) return wrong("needs a mode such as \"0770\"");
    config.*field = *bits;
    return {};
  };
}

bool is_word(std::string_view text, std::size_t most) {
  return !text.empty() && text.size() <= most &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f && c != '/' && c != '%'; });
}

std::optional<UserLinkGrant> parse_grant(const std::string& text) {
  const auto parts = split(text, ':');
  if (parts.size() != 3) return std::nullopt;
  UserLinkGrant grant;
  grant.is_group = parts[0].starts_with('@');
  grant.who = parts[0].substr(grant.is_group ? 1 : 0);
  grant.bridge = parts[1];
  grant.limit = parse_number<unsigned>(parts[2]).value_or(0);
  if (!is_word(grant.who, 256) || !is_word(grant.bridge, 15) || grant.limit < 1 || grant.limit > kMostUserLinks)
    return std::nullopt;
  return grant;
}

Result<void> take_user_links(DaemonConfig& config, const toml::node& node) {
  constexpr std::size_t kMostGrants = 1024;
  const auto* list = node.as_array();
  if (!list || list->size() > kMostGrants)
    return wrong("needs a list of at most " + std::to_string(kMostGrants) + " strings");
  for (const auto& element : *list) {
    const auto text = element.value_exact<std::string>();
    auto grant = text ? parse_grant(*text) : std::nullopt;
    if (!grant)
      return wrong((text ? "has " + quote(*text) + " in it, " : "has something else than strings in it, ") +
                   "but needs \"USER:BRIDGE:N\" or \"@GROUP:BRIDGE:N\", with N from 1 to " +
                   std::to_string(kMostUserLinks));
    const auto& at = element.source();
    grant->where =
        (at.path ? printable(*at.path) + ":" : "line ") + std::to_string(at.begin.line) + ": " + quote(*text);
    config.user_links.push_back(std::move(*grant));
  }
  return {};
}

const std::map<std::string, Take>& keys() {
  using C = DaemonConfig;
  constexpr std::int64_t kMany = 1'000'000, kMaxId = 4'294'967'294;
  static const std::map<std::string, Take> all = {
      {"unix_sock_group", text(&C::unix_sock_group)},
      {"unix_sock_ro_perms", mode(&C::unix_sock_ro_perms)},
      {"unix_sock_rw_perms", mode(&C::unix_sock_rw_perms)},
      {"auth_unix_ro", choice(&C::auth_unix_ro, {"none", "polkit"})},
      {"auth_unix_rw", choice(&C::auth_unix_rw, {"none", "polkit"})},
      {"access_drivers", list(&C::access_drivers, {"owner"})},
      {"access_admin_groups", list(&C::access_admin_groups)},
      {"max_domains_per_owner", number(&C::max_domains_per_owner, 0, kMany)},
      {"max_clients", number(&C::max_clients, 1, kMany)},
      {"max_queued_clients", number(&C::max_queued_clients, 1, kMany)},
      {"max_anonymous_clients", number(&C::max_anonymous_clients, 1, kMany)},
      {"max_clients_per_uid", number(&C::max_clients_per_uid, 1, kMany)},
      {"min_workers", number(&C::min_workers, 1, 1000)},
      {"max_workers", number(&C::max_workers, 1, 1000)},
      {"prio_workers", number(&C::prio_workers, 1, 1000)},
      {"max_client_requests", number(&C::max_client_requests, 1, 1000)},
      {"keepalive_interval", number(&C::keepalive_interval, -1, 86400)},
      {"keepalive_count", number(&C::keepalive_count, 0, 1000)},
      {"log_level", number(&C::log_level, 1, 4)},
      {"log_filters", text(&C::log_filters)},
      {"log_outputs", text(&C::log_outputs)},
      {"host_uuid", text(&C::host_uuid)},
      {"id_range_first", number(&C::id_range_first, 1, kMaxId)},
      {"id_range_last", number(&C::id_range_last, 1, kMaxId)},
      {"id_range_size", number(&C::id_range_size, 1, kMaxId)},
      {"ids_per", choice(&C::ids_per, {"domain", "project"})},
      {"pids_limit", number(&C::pids_limit, 1, 4'194'304)},
      {"cgroup_parent", text(&C::cgroup_parent)},
      {"allow_enter_namespace", flag(&C::allow_enter_namespace)},
      {"shutdown_timeout_s", number(&C::shutdown_timeout_s, 0, 86400)},
      {"user_links", take_user_links},
  };
  return all;
}

}  // namespace

Result<DaemonConfig> parse_daemon_config(const std::string& text, const std::string& file_name) {
  const auto table = TRY(parse_toml(text, file_name));
  DaemonConfig config;
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    const auto found = keys().find(name);
    if (found == keys().end()) return error_at(file_name, key.source().begin, "unknown key " + quote(name));
    if (const auto taken = found->second(config, node); !taken)
      return error_at(file_name, key.source().begin, "key " + quote(name) + " " + taken.error().text);
  }
  // A group is named so that its members may connect.
  if (!config.unix_sock_group.empty() && !table.contains("unix_sock_rw_perms")) config.unix_sock_rw_perms = 0770;
  if (config.auth_unix_rw == "polkit" && !table.contains("unix_sock_rw_perms")) config.unix_sock_rw_perms = 0777;
  if (config.max_workers < config.min_workers)
    return fail(VIR_ERR_CONF_SYNTAX, file_name + ": max_workers is less than min_workers");
  if (config.id_range_first > config.id_range_last)
    return fail(VIR_ERR_CONF_SYNTAX, file_name + ": id_range_last is less than id_range_first");
  return config;
}

Result<DaemonConfig> read_daemon_config(const std::string& path) {
  const auto text = read_file(path, 1024 * 1024);
  if (!text && text.error().sys_errno == ENOENT) return DaemonConfig{};
  if (!text) return text.error();
  return parse_daemon_config(*text, path);
}

}  // namespace virtuserns
