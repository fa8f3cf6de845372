// virDomainSetMetadata's text: no crash, and what is set can be read back and set again.
#include <cstdlib>

#include "xml/domain.h"
#include "xml/metadata.h"

using namespace virtuserns;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::string_view uri : {std::string_view("urn:a"), kUsernsUri}) {
    DomainDef def;
    def.name = "x";
    if (!xml::set_metadata(def, text, "key", uri)) continue;
    const auto got = xml::extract_metadata(def, uri);
    const auto printed = xml::format_domain(def, xml::FormatKind::kInactive);
    const auto again = xml::parse_domain(printed);
    if (!got || !again || again->metadata != def.metadata || again->userns != def.userns) std::abort();
  }
  return 0;
}
