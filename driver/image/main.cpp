// virtuserns-image PARTITION OFFSET SIZE: what file system is in the image at descriptor 3. Run by the controller, in a jail
// (driver/controller/jail.h), because libblkid reads what a stranger has written.
#include <cstdio>

#include "conf/base/text.h"
#include "driver/image/layout.h"

int main(int argc, char** argv) {
  using namespace virtuserns;
  constexpr int kImageFd = 3;
  if (argc != 4) {
    std::fputs("usage: virtuserns-image PARTITION OFFSET SIZE   (the image is descriptor 3)\n", stderr);
    return 2;
  }
  const auto partition = parse_number<std::uint32_t>(argv[1]);
  const auto offset = parse_number<std::uint64_t>(argv[2]), size = parse_number<std::uint64_t>(argv[3]);
  if (!partition || !offset || !size) {
    std::fputs("virtuserns-image: a whole number is needed\n", stderr);
    return 2;
  }
  const Fd image(kImageFd);
  const auto found = image::find_filesystem(image, {*partition, *offset, *size});
  if (!found) {
    std::fprintf(stderr, "%s\n", found.error().text.c_str());
    return 1;
  }
  std::printf("%s %llu %llu\n", found->type.c_str(), static_cast<unsigned long long>(found->offset_bytes),
              static_cast<unsigned long long>(found->size_bytes));
  return 0;
}
