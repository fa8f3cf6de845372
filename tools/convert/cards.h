// The network cards that a guest's configuration speaks of. Every reader takes the bytes of a file of the guest and never
// fails: what it does not understand is nothing.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/domain.h"
#include "tools/convert/guest_files.h"

namespace virtuserns::convert {

struct Card {
  std::string name;               // as the configuration calls it; may be empty
  std::optional<MacAddress> mac;  // that it is recognised by
  std::string path;               // the file that says so
};

[[nodiscard]] bool is_link_name(std::string_view name);  // that a card can have: not "lo", at most 15 bytes, ...

[[nodiscard]] std::vector<Card> parse_ifupdown(std::string_view text);
// allow-hotplug becomes auto: nothing is plugged where there is no udev.
[[nodiscard]] std::string with_auto(std::string_view text);
[[nodiscard]] std::vector<Card> parse_netplan(std::string_view text);
// "Key=Value" of systemd's .network and .link files, NetworkManager's keyfiles, ifcfg files.
[[nodiscard]] std::vector<Card> parse_key_file(std::string_view text);
[[nodiscard]] std::vector<Card> parse_udev_rules(std::string_view text);

// All files that configure cards, sorted.
[[nodiscard]] std::vector<std::string> network_files(const GuestFiles& files);
[[nodiscard]] std::vector<Card> find_cards(const GuestFiles& files);

}  // namespace virtuserns::convert
