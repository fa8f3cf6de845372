// The names that a guest gives its network cards, found without running it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/domain.h"
#include "tools/convert/guest_files.h"
#include "tools/convert/rules.h"

namespace virtuserns::convert {

struct NicSource {
  MacAddress mac;
  struct Pci {
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    bool is_multifunction = false;
  };
  std::optional<Pci> pci;  // of the XML's <address type='pci'>
  std::string model;
};

// In the order of `sources`, each with a name that is unique. By MAC first (udev rules, .link files, netplan set-name),
// then the names that its network configuration mentions as far as they fit where the card sits (enp1s0, ens3, eth0),
// then what the kernel and systemd would call it. What is a guess is said.
[[nodiscard]] std::vector<GuestNic> name_nics(const GuestFiles& files, const std::vector<NicSource>& sources,
                                              std::vector<Finding>& findings);

// For a copy: each gets a MAC address of chance, and what it was becomes former_mac.
void give_new_macs(std::vector<GuestNic>& nics);

}  // namespace virtuserns::convert
