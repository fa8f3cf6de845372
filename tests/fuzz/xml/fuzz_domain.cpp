// Any text: no crash; and what is accepted and printed once must be accepted again and print the same.
#include <cstdio>
#include <cstdlib>

#include "conf/defaults.h"
#include "conf/validate.h"
#include "xml/domain.h"

using namespace virtuserns;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto def = xml::parse_domain(text);
  if (!def) return 0;
  apply_defaults(*def, {"x86_64", "/usr/libexec/virtuserns/virtuserns-controller"});
  (void)validate(*def);
  (void)unhonoured(*def);
  const auto printed = xml::format_domain(*def, xml::FormatKind::kInactive, xml::Secrets::kShow);
  auto again = xml::parse_domain(printed);
  if (!again) {
    std::fprintf(stderr, "refused its own text: %s\n%s", again.error().text.c_str(), printed.c_str());
    std::abort();
  }
  apply_defaults(*again, {"x86_64", "/usr/libexec/virtuserns/virtuserns-controller"});
  const auto reprinted = xml::format_domain(*again, xml::FormatKind::kInactive, xml::Secrets::kShow);
  if (reprinted != printed) {
    std::fprintf(stderr, "first:\n%ssecond:\n%s", printed.c_str(), reprinted.c_str());
    std::abort();
  }
  return 0;
}
