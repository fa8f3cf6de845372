// Guests as rules see them: programs, units, and what is enabled.
#pragma once

#include "tests/unit/convert/tree.h"
#include "tools/convert/rules.h"
#include "xml/devices.h"

namespace virtuserns::convert {

inline GuestOptions options_with_card(const char* name = "enp1s0") {
  GuestOptions options;
  options.nics = {{*xml::parse_mac("52:54:00:aa:bb:01"), name, {}}};
  return options;
}

inline void elf(const Tree& tree, const std::string& name, unsigned char machine = 62) {
  std::string head(
      "\x7f"
      "ELF\x02\x01\x01",
      7);
  head.resize(64);
  head[18] = static_cast<char>(machine);
  tree.write(name, head);
}

inline void units(const Tree& tree, std::initializer_list<const char*> names,
                  const std::string& dir = "/lib/systemd/system/") {
  for (const std::string name : names) tree.write(dir + name, "[Unit]\n");
}
inline void enable(const Tree& tree, const std::string& unit, const std::string& target = "multi-user.target") {
  tree.link("/etc/systemd/system/" + target + ".wants/" + unit, "/lib/systemd/system/" + unit);
}
inline bool is_masked(const Tree& tree, const std::string& unit) {
  return tree.target("/etc/systemd/system/" + unit) == "/dev/null";
}

}  // namespace virtuserns::convert
