// virtusernsd.conf: whatever stands there, it is settings, or an error that names the file and one of its lines.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "conf/base/text.h"
#include "conf/daemon_config.h"
#include "conf/toml.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  const std::string text(reinterpret_cast<const char*>(data), size);
  (void)parse_daemon_config(text, "x");
  const auto table = parse_toml(text, "x");
  if (table) return 0;
  const std::string_view said = table.error().text;
  const auto line =
      said.starts_with("x:") ? parse_number<std::int64_t>(said.substr(2, said.find(':', 2) - 2)) : std::nullopt;
  if (!line || *line < 1 || *line > std::count(text.begin(), text.end(), '\n') + 1) std::abort();
  return 0;
}
