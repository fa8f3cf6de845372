#include "tools/convert/cards.h"

#include <algorithm>
#include <array>

#include "conf/base/text.h"
#include "xml/devices.h"

namespace virtuserns::convert {

namespace {

constexpr std::size_t kMaxCards = 1000;  // of one file

struct Place {
  const char* directory;
  const char* prefix;
  const char* suffix;
  std::vector<Card> (*parse)(std::string_view text);
};
constexpr std::array kPlaces = {
    Place{"/etc/network/interfaces.d", "", "", parse_ifupdown},
    Place{"/etc/netplan", "", ".yaml", parse_netplan},
    Place{"/etc/netplan", "", ".yml", parse_netplan},
    Place{"/etc/systemd/network", "", ".network", parse_key_file},
    Place{"/etc/systemd/network", "", ".link", parse_key_file},
    Place{"/etc/NetworkManager/system-connections", "", "", parse_key_file},
    Place{"/etc/sysconfig/network-scripts", "ifcfg-", "", parse_key_file},
    Place{"/etc/sysconfig/network", "ifcfg-", "", parse_key_file},
    Place{"/etc/udev/rules.d", "", "persistent-net.rules", parse_udev_rules},
};

std::string unquote(std::string_view value) {
  value = trim(value);
  if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front())
    value = value.substr(1, value.size() - 2);
  return std::string(value);
}

std::size_t indent_of(std::string_view line) { return std::min(line.find_first_not_of(' '), line.size()); }

// `KEY=="value"` of a udev rule, also `KEY="value"`.
std::string udev_value(std::string_view line, std::string_view key) {
  const auto at = line.find(key);
  if (at == std::string_view::npos) return {};
  const auto open = line.find('"', at + key.size());
  const auto close = open == std::string_view::npos ? open : line.find('"', open + 1);
  return close == std::string_view::npos ? std::string() : std::string(line.substr(open + 1, close - open - 1));
}

}  // namespace

bool is_link_name(std::string_view name) {
  return !name.empty() && name.size() <= 15 && name != "lo" && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                  c == '_' || c == '.';
         });
}

std::vector<Card> parse_ifupdown(std::string_view text) {
  std::vector<Card> cards;
  for (const auto line : split(text, '\n')) {
    const auto words = split_blanks(line);
    if (words.size() < 2 || cards.size() >= kMaxCards) continue;
    if (words[0] == "iface" && is_link_name(words[1]))
      cards.push_back({std::string(words[1]), {}, {}});
    else if (words[0] == "hwaddress" && !cards.empty())
      cards.back().mac = xml::parse_mac(words.back());
  }
  return cards;
}

std::string with_auto(std::string_view text) {
  constexpr std::string_view kWord = "allow-hotplug";
  std::string edited;
  for (std::size_t start = 0; start <= text.size();) {
    const auto end = std::min(text.find('\n', start), text.size());
    auto line = text.substr(start, end - start);
    const auto words = split_blanks(line);
    if (words.size() > 1 && words[0] == kWord) {
      const auto at = line.find(kWord);
      edited.append(line.substr(0, at)).append("auto");
      line.remove_prefix(at + kWord.size());
    }
    edited += line;
    if (end < text.size()) edited += '\n';
    start = end + 1;
  }
  return edited;
}

// Not YAML, but what netplan's files look like in practice: one key a line, by indentation.
std::vector<Card> parse_netplan(std::string_view text) {
  std::vector<Card> cards;
  bool is_id = true;                                     // the last card's name is its key
  std::size_t base = std::string_view::npos, level = 0;  // of "ethernets:", of the cards
  for (const auto line : split(text, '\n')) {
    const auto trimmed = trim(line);
    if (trimmed.empty() || trimmed.front() == '#' || cards.size() >= kMaxCards) continue;
    const auto indent = indent_of(line);
    const auto colon = trimmed.find(':');
    if (colon == std::string_view::npos) continue;
    if (base != std::string_view::npos && indent <= base) base = std::string_view::npos;
    if (trimmed == "ethernets:") {
      base = indent, level = 0;
      continue;
    }
    if (base == std::string_view::npos) continue;
    if (level == 0) level = indent;
    if (indent == level) {
      cards.push_back({unquote(trimmed.substr(0, colon)), {}, {}});
      is_id = true;
    } else if (!cards.empty() && indent > level) {
      // The key of a card that is matched is an id of netplan's and no name.
      if (trimmed == "match:" && is_id) cards.back().name.clear();
      if (trimmed.starts_with("macaddress:") && !cards.back().mac)
        cards.back().mac = xml::parse_mac(unquote(trimmed.substr(colon + 1)));
      if (trimmed.starts_with("set-name:") || (trimmed.starts_with("name:") && cards.back().name.empty()))
        cards.back().name = unquote(trimmed.substr(colon + 1)), is_id = false;
    }
  }
  for (auto& card : cards)
    if (!is_link_name(card.name)) card.name.clear();
  std::erase_if(cards, [](const Card& card) { return card.name.empty() && !card.mac; });
  return cards;
}

std::vector<Card> parse_key_file(std::string_view text) {
  Card card;
  bool is_link_section = false;
  for (const auto line : split(text, '\n')) {
    const auto trimmed = trim(line);
    if (trimmed.starts_with("["))
      is_link_section = trimmed == "[Match]" || trimmed == "[Link]" || trimmed == "[connection]";
    const auto equals = trimmed.find('=');
    if (equals == std::string_view::npos) continue;
    const auto key = trim(trimmed.substr(0, equals));
    const auto value = unquote(trimmed.substr(equals + 1));
    const bool names_it = key == "interface-name" || key == "DEVICE" || (key == "Name" && is_link_section);
    if (names_it && is_link_name(value)) card.name = value;
    for (const std::string_view known : {"MACAddress", "mac-address", "HWADDR", "PermanentMACAddress"})
      if (key == known && !card.mac) card.mac = xml::parse_mac(value);
  }
  if (card.name.empty() && !card.mac) return {};
  return {card};
}

std::vector<Card> parse_udev_rules(std::string_view text) {
  std::vector<Card> cards;
  for (const auto line : split(text, '\n')) {
    const auto trimmed = trim(line);
    if (trimmed.empty() || trimmed.front() == '#' || cards.size() >= kMaxCards) continue;
    Card card{udev_value(trimmed, " NAME="), xml::parse_mac(udev_value(trimmed, "ATTR{address}==")), {}};
    if (is_link_name(card.name) && card.mac) cards.push_back(std::move(card));
  }
  return cards;
}

std::vector<std::string> network_files(const GuestFiles& files) {
  std::vector<std::string> paths;
  if (files.exists("/etc/network/interfaces")) paths.emplace_back("/etc/network/interfaces");
  for (const auto& place : kPlaces)
    for (const auto& name : files.list(place.directory))
      if (name.starts_with(place.prefix) && name.ends_with(place.suffix) && name != "ifcfg-lo")
        paths.push_back(std::string(place.directory) + "/" + name);
  return paths;
}

std::vector<Card> find_cards(const GuestFiles& files) {
  std::vector<Card> all;
  const auto take = [&](const std::string& path, std::vector<Card> (*parse)(std::string_view)) {
    for (auto& card : parse(files.read_or_empty(path))) {
      card.path = path;
      all.push_back(std::move(card));
    }
  };
  take("/etc/network/interfaces", parse_ifupdown);
  for (const auto& place : kPlaces) {
    for (const auto& name : files.list(place.directory)) {
      if (!name.starts_with(place.prefix) || !name.ends_with(place.suffix) || name == "ifcfg-lo") continue;
      const auto before = all.size();
      take(std::string(place.directory) + "/" + name, place.parse);
      // SUSE's files have the card's name in their own only.
      const std::string_view prefix = place.prefix;
      const auto rest = name.substr(std::min(prefix.size(), name.size()));
      if (!prefix.empty() && before == all.size() && is_link_name(rest))
        all.push_back({rest, {}, std::string(place.directory) + "/" + name});
    }
  }
  return all;
}

}  // namespace virtuserns::convert
