// XML that says it is a machine.
#include <cstdint>
#include <string_view>

#include "conf/validate.h"
#include "tools/convert/map_domain.h"
#include "xml/domain.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  using namespace virtuserns::convert;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto domain = read_kvm_domain(text);
  MapOptions options;
  FilesystemDef root;
  root.source = "/srv/root", root.target = "/";
  options.filesystems = {root};
  options.shares = {{"share", "/mnt"}};
  if (domain)
    for (const auto& nic : domain->nics) options.nics.push_back({nic.mac, "", {}});
  for (const auto identity : {Identity::kMove, Identity::kCopy}) {
    options.identity = identity;
    const auto mapped = map_domain(text, options);
    if (!mapped) continue;
    if (!validate(mapped->def)) __builtin_trap();
    // What is printed is what the daemon reads.
    const auto printed = xml::format_domain(mapped->def, xml::FormatKind::kInactive);
    const auto again = xml::parse_domain(printed);
    if (!again || xml::format_domain(*again, xml::FormatKind::kInactive) != printed) __builtin_trap();
  }
  return 0;
}
