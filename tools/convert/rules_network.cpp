// The guest's network configuration, which must find the cards that the container has.
#include <algorithm>
#include <set>

#include "conf/base/text.h"
#include "conf/domain_devices.h"
#include "tools/convert/cards.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// `text` with every `from`, in any case, as `to`; how often.
std::size_t replace_all(std::string& text, const std::string& from, const std::string& to) {
  std::size_t count = 0;
  std::string low(text.size(), '\0');
  std::transform(text.begin(), text.end(), low.begin(), lower);
  for (std::size_t at = 0; (at = low.find(from, at)) != std::string::npos; at += from.size(), ++count)
    std::copy(to.begin(), to.end(), text.begin() + static_cast<std::ptrdiff_t>(at));
  return count;
}

void follow_new_macs(Guest& guest) {
  for (const auto& path : network_files(guest.files)) {
    auto text = guest.files.read_or_empty(path);
    std::size_t count = 0;
    for (const auto& nic : guest.options.nics)
      if (nic.former_mac) count += replace_all(text, format_mac(*nic.former_mac), format_mac(nic.mac));
    if (count > 0 && guest.replace(path, text))
      guest.add(Severity::kChange, path, "has the MAC address of the copy in the place of the machine's");
  }
}

void edit_ifupdown(Guest& guest) {
  auto paths = guest.list_paths("/etc/network/interfaces.d", "");
  paths.emplace_back("/etc/network/interfaces");
  for (const auto& path : paths) {
    const auto text = guest.files.read(path);
    if (!text) continue;
    auto edited = with_auto(*text);
    if (edited != *text && guest.replace(path, std::move(edited)))
      guest.add(Severity::kChange, path, "allow-hotplug is auto: nothing is plugged where there is no udev");
  }
}

// A card of a container is a veth: what is recognised by its driver or its place on a bus is not found.
void report_matches(Guest& guest) {
  for (const auto& path : network_files(guest.files)) {
    for (const auto& line : config_lines(guest.files.read_or_empty(path))) {
      const bool is_netplan = path.starts_with("/etc/netplan/");
      const bool is_lost =
          is_netplan ? line.starts_with("driver:")
                     : path.ends_with(".network") && (line.starts_with("Driver=") || line.starts_with("Path=") ||
                                                      line.starts_with("Kind=") || line.starts_with("Property="));
      if (is_lost)
        guest.add(Severity::kLoss, path, "finds its card by " + quote(line) + ", which the container's is not",
                  "match it by name or MAC address");
    }
  }
}

void report_names(Guest& guest) {
  std::set<std::string> configured, present;
  const auto cards = find_cards(guest.files);
  for (const auto& card : cards) configured.insert(card.name);
  for (const auto& nic : guest.options.nics) {
    present.insert(nic.guest_dev);
    const bool is_known =
        configured.contains(nic.guest_dev) ||
        std::any_of(cards.begin(), cards.end(), [&](const Card& card) { return card.mac == nic.mac; });
    if (!is_known)
      guest.add(Severity::kNote, "card " + quote(nic.guest_dev), "no configuration of the guest names it");
  }
  for (const auto& name : configured) {
    const bool is_of_hardware =
        (name.starts_with("en") || name.starts_with("eth")) && name.find('.') == std::string::npos;
    if (is_of_hardware && !present.contains(name) && !guest.options.nics.empty())
      guest.add(Severity::kLoss, "card " + quote(name), "is configured, and the container has no such card",
                "take it out of the guest's configuration");
  }
}

// NetworkManager leaves cards of the kind veth alone, as somebody else's.
void edit_network_manager(Guest& guest) {
  if (!guest.is_enabled("NetworkManager.service") || guest.options.nics.empty()) return;
  constexpr const char* kConf = "/etc/NetworkManager/conf.d/90-virtuserns-convert.conf";
  std::string names;
  for (const auto& nic : guest.options.nics)
    names += (names.empty() ? "" : ",") + ("interface-name:" + nic.guest_dev);
  if (guest.replace(kConf, "[device-virtuserns]\nmatch-device=" + names + "\nmanaged=1\n"))
    guest.add(Severity::kChange, kConf, "NetworkManager takes care of the container's cards");
}

}  // namespace

void apply_network(Guest& guest) {
  follow_new_macs(guest);
  edit_ifupdown(guest);
  report_matches(guest);
  report_names(guest);
  edit_network_manager(guest);
}

}  // namespace virtuserns::convert
