// A physical volume, and the text of a group.
#include "tests/fuzz/convert_disk/bytes.h"
#include "tools/convert/lvm.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns::convert;
  const auto physical = read_lvm_physical(disk_of(data, size));
  if (physical && *physical && (*physical)->metadata.size() > kMaxLvmText) __builtin_trap();
  const auto volumes = parse_lvm_metadata({reinterpret_cast<const char*>(data), size});
  if (volumes)
    for (const auto& volume : *volumes)
      for (const auto& segment : volume.segments)
        if (segment.size == 0 || segment.offset + segment.size < segment.offset) __builtin_trap();
  return 0;
}
