// A lease file: what is accepted is a map that the kernel accepts, and formats back to itself.
#include <cstdlib>
#include <string_view>

#include "conf/leases.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  const auto lease = parse_lease(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!lease) return 0;
  if (refuse_kernel_map(lease->maps.uid) || refuse_kernel_map(lease->maps.gid)) std::abort();
  const auto again = parse_lease(format_lease(*lease));
  if (!again || !(again->maps == lease->maps)) std::abort();
  return 0;
}
