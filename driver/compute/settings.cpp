#include "driver/compute/settings.h"

#include <functional>
#include <map>
#include <sstream>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/toml.h"

namespace virtuserns::compute {
namespace {

// Takes a value over, or says what the key needs.
using Take = std::function<std::string(Settings&, const toml::node&)>;

Take text(std::string Settings::*field) {
  return [field](Settings& settings, const toml::node& node) -> std::string {
    const auto value = node.value_exact<std::string>();
    if (!value) return "needs a string";
    settings.*field = *value;
    return "";
  };
}

Take path(std::string Settings::*field) {
  return [field](Settings& settings, const toml::node& node) -> std::string {
    const auto value = node.value_exact<std::string>();
    if (!value || !value->starts_with('/')) return "needs an absolute path";
    settings.*field = *value;
    return "";
  };
}

// "": what the default does.
Take path_or_none(std::string Settings::*field) {
  return [field](Settings& settings, const toml::node& node) -> std::string {
    const auto value = node.value_exact<std::string>();
    if (!value || (!value->empty() && !value->starts_with('/'))) return "needs an absolute path, or \"\"";
    settings.*field = *value;
    return "";
  };
}

Take flag(bool Settings::*field) {
  return [field](Settings& settings, const toml::node& node) -> std::string {
    const auto value = node.value_exact<bool>();
    if (!value) return "needs true or false";
    settings.*field = *value;
    return "";
  };
}

template <class T>
Take number(T Settings::*field, std::int64_t least, std::int64_t most) {
  return [field, least, most](Settings& settings, const toml::node& node) -> std::string {
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < least || *value > most)
      return "needs a number from " + std::to_string(least) + " to " + std::to_string(most);
    settings.*field = static_cast<T>(*value);
    return "";
  };
}

const std::map<std::string, Take>& keys() {
  using S = Settings;
  static const std::map<std::string, Take> all = {
      {"connect", text(&S::connect)},
      {"socket", path(&S::socket)},
      {"socket_group", text(&S::socket_group)},
      {"state", path(&S::state)},
      {"daemon_config", path(&S::daemon_config)},
      {"image_program", path_or_none(&S::image_program)},
      {"console_address", text(&S::console_address)},
      {"host", text(&S::host)},
      {"migration_address", text(&S::migration_address)},
      {"migration_command", text(&S::migration_command)},
      {"dumps", path(&S::dumps)},
      {"dumps_kept", number(&S::dumps_kept, 1, 100000)},
      {"root_volumes", flag(&S::root_volumes)},
      {"default_disk_gb", number(&S::default_disk_gb, 1, 1 << 20)},
      {"image_limit_gb", number(&S::image_limit_gb, 0, 1 << 20)},
      {"image_reserve_percent", number(&S::image_reserve_percent, 0, 90)},
      {"patience_s", number(&S::patience_s, 0, 3600)},
      {"quiesce_limit_s", number(&S::quiesce_limit_s, 1, 86400)},
      {"soft_reboot_timeout_s", number(&S::soft_reboot_timeout_s, 1, 3600)},
      {"log_level", number(&S::log_level, 1, 4)},
  };
  return all;
}

}  // namespace

Result<Settings> parse_settings(const std::string& text, const std::string& file_name) {
  const auto table = TRY(parse_toml(text, file_name));
  Settings settings;
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    const auto found = keys().find(name);
    if (found == keys().end()) return error_at(file_name, key.source().begin, "unknown key " + quote(name));
    if (const auto wrong = found->second(settings, node); !wrong.empty())
      return error_at(file_name, key.source().begin, "key " + quote(name) + " " + wrong);
  }
  return settings;
}

Result<Settings> read_settings_file(const std::string& path) {
  const auto text = read_file(path, 1024 * 1024);
  if (!text && text.error().sys_errno == ENOENT) return Settings{};
  if (!text) return text.error();
  return parse_settings(*text, path);
}

}  // namespace virtuserns::compute
