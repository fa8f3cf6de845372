// One device, as attach takes it: no crash, and a stable printed form.
#include <cstdio>
#include <cstdlib>

#include "conf/defaults.h"
#include "conf/validate.h"
#include "xml/devices.h"

using namespace virtuserns;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const unsigned flags : {unsigned{xml::kParseInactive}, unsigned{xml::kParseLive}}) {
    auto device = xml::parse_device({reinterpret_cast<const char*>(data), size}, flags);
    if (!device) return 0;
    apply_device_defaults(*device, {});
    (void)validate_device(*device);
    const auto printed = xml::format_device(*device);
    auto again = xml::parse_device(printed, flags);
    if (again && xml::format_device(*again) == printed) continue;
    std::fprintf(stderr, "%s%s", printed.c_str(),
                 again ? xml::format_device(*again).c_str() : again.error().text.c_str());
    std::abort();
  }
  return 0;
}
