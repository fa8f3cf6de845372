// What is looked at in an image before the kernel mounts it: any bytes give a place inside of the image, or an error.
#include <cstdlib>

#include "driver/controller/qcow2.h"
#include "driver/image/layout.h"
#include "tests/support/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  const Fd image = test::memory_file(std::span(data, size));
  (void)controller::read_qcow2_header(image);
  for (const image::Wanted& wanted :
       {image::Wanted{}, image::Wanted{1}, image::Wanted{5}, image::Wanted{0, 512, 0}}) {
    const auto found = image::find_filesystem(image, wanted);
    if (found && (found->offset_bytes >= size || found->size_bytes > size - found->offset_bytes)) std::abort();
  }
  return 0;
}
