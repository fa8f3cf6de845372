#include "tools/image/detect.h"

#include <algorithm>
#include <optional>

#include "conf/base/text.h"
#include "tools/convert/image.h"

namespace virtuserns::image {
namespace {

struct Magic {
  std::string_view bytes;
  Compression compression;
};
constexpr Magic kCompressed[] = {{{"\x1f\x8b", 2}, Compression::kGzip},
                                 {{"\xfd"
                                   "7zXZ\0",
                                   6},
                                  Compression::kXz},
                                 {{"\x28\xb5\x2f\xfd", 4}, Compression::kZstd},
                                 {"BZh", Compression::kBzip2}};
constexpr std::size_t kChecksumAt = 148, kChecksumBytes = 8, kHeader = 512;

// The sum of all bytes with blanks in its own place, in octal: every tar has it.
bool is_tar(std::string_view start) {
  if (start.size() < kHeader) return false;
  unsigned sum = 0;
  for (std::size_t i = 0; i < kHeader; ++i) {
    const bool is_own = i >= kChecksumAt && i < kChecksumAt + kChecksumBytes;
    sum += is_own ? ' ' : static_cast<unsigned char>(start[i]);
  }
  auto text = trim(start.substr(kChecksumAt, kChecksumBytes));
  text = text.substr(0, text.find_first_of(std::string_view("\0 ", 2)));
  return parse_number<unsigned>(text, 8) == sum;
}

std::optional<Compression> archive_of(std::string_view start) {
  for (const auto& magic : kCompressed)
    if (start.starts_with(magic.bytes)) return magic.compression;
  if (is_tar(start)) return Compression::kNone;
  return std::nullopt;
}

}  // namespace

Result<Detected> detect(std::string_view start, const std::string& wanted) {
  const auto refused = [&](const std::string& found) {
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "it is said to be " + wanted + " and begins as " + found);
  };
  constexpr const char* kKnown[] = {"", "raw", "qcow2", "vmdk", "vdi", "vhd", "vpc", "vhdx", kRootTar};
  if (std::find(std::begin(kKnown), std::end(kKnown), wanted) == std::end(kKnown))
    return fail(
        VIR_ERR_CONFIG_UNSUPPORTED,
        "the format " + quote(wanted) + " is none that is read here: raw, qcow2, vmdk, vdi, vhd, vhdx, root-tar");
  const auto compression = archive_of(start);
  const auto disk = convert::guess_format(start);
  if (wanted == kRootTar) {
    if (!compression) return refused("no archive");
    return Detected{kRootTar, *compression};
  }
  if (wanted.empty()) return compression ? Detected{kRootTar, *compression} : Detected{disk, {}};
  // Its own header is at its end.
  if (wanted == "vhd" || wanted == "vpc") {
    if (disk != "vpc" && (disk != "raw" || compression)) return refused(compression ? "an archive" : disk);
    return Detected{"vpc", {}};
  }
  if (compression && wanted == "raw") return refused("an archive");
  if (disk != wanted) return refused(compression ? "an archive" : disk);
  return Detected{wanted, {}};
}

}  // namespace virtuserns::image
