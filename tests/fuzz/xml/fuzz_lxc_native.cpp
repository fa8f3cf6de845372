// lxc.conf: no crash, and what is imported can be printed and parsed.
#include <cstdio>
#include <cstdlib>

#include "conf/defaults.h"
#include "conf/validate.h"
#include "xml/domain.h"
#include "xml/lxc_native.h"

using namespace virtuserns;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto import = xml::parse_lxc_config({reinterpret_cast<const char*>(data), size});
  if (!import) return 0;
  apply_defaults(import->def, {"x86_64", "/controller"});
  // Names of elements (capabilities) come from the text too: only what passes the rules is promised to be XML.
  if (!validate(import->def)) return 0;
  const auto again = xml::parse_domain(xml::format_domain(import->def, xml::FormatKind::kInactive));
  if (again) return 0;
  std::fprintf(stderr, "%s\n", again.error().text.c_str());
  std::abort();
}
