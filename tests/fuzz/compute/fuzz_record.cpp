// The journal of an instance, whatever a crash or a disk made of it; what is taken is written and read again as it was.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "driver/compute/record.h"

using namespace virtuserns;
using namespace virtuserns::compute;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto record = parse_record({reinterpret_cast<const char*>(data), size});
  if (!record) return 0;
  const auto again = parse_record(format_record(*record));
  if (!again || !(*again == *record)) std::abort();
  return 0;
}
