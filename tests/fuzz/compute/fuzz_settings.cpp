// virtuserns-compute.conf; and, of the same bytes, base64 and /proc/cpuinfo.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "driver/compute/host.h"
#include "driver/compute/settings.h"

using namespace virtuserns;
using namespace virtuserns::compute;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto settings = parse_settings(text, "file");
  if (settings && (settings->log_level < 1 || settings->log_level > 4 || !settings->state.starts_with('/'))) std::abort();
  if (!settings && settings.error().text.find("file:") == std::string::npos) std::abort();
  if (decode_base64(encode_base64(text)) != text) std::abort();
  if (const auto decoded = decode_base64(text); decoded && decoded->size() > text.size()) std::abort();
  (void)cpu_traits(text);
  return 0;
}
