// A disk whose first bytes are the input: what its partition table says is within it.
#include "tests/fuzz/convert_disk/bytes.h"
#include "tools/convert/partition.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns::convert;
  const auto partitions = read_partitions(disk_of(data, size));
  if (!partitions) return 0;
  if (partitions->size() > kMaxPartitions) __builtin_trap();
  for (const auto& part : *partitions)
    if (part.size > size || part.offset > size - part.size || part.number == 0) __builtin_trap();
  return 0;
}
