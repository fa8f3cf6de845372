// The bytes of a guest's files, and of the manifest of originals: each reader by itself.
#include <cstdint>
#include <string_view>

#include "tools/convert/cards.h"
#include "tools/convert/fstab.h"
#include "tools/convert/guest.h"
#include "tools/convert/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns::convert;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto lines = parse_fstab(text);
  auto again = format_fstab(lines);
  if (!text.ends_with('\n')) again.pop_back();
  if (again != text) __builtin_trap();
  (void)parse_os_release(text);
  (void)config_lines(text);
  const auto edited = with_auto(text);
  if (with_auto(edited) != edited) __builtin_trap();
  for (auto* parse : {parse_ifupdown, parse_netplan, parse_key_file, parse_udev_rules})
    for (const auto& card : parse(text))
      if (!card.name.empty() && !is_link_name(card.name)) __builtin_trap();
  if (const auto manifest = parse_manifest(text)) {
    const auto printed = format_manifest(*manifest);
    const auto second = parse_manifest(printed);
    if (!second || format_manifest(*second) != printed) __builtin_trap();
  }
  return 0;
}
