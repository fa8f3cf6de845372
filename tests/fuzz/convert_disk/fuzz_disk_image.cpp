// The first bytes of an image.
#include <cstdint>
#include <string_view>

#include "driver/controller/qcow2.h"
#include "tools/convert/image.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  using namespace virtuserns::convert;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto header = controller::parse_qcow2_header(text);
  if (header && header->backing.size() > 1023) __builtin_trap();
  (void)check_vmdk_header(text);
  if (guess_format(text).empty()) __builtin_trap();
  return 0;
}
