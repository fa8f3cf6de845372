// <userns:image>: which part of an image is a file system.
#include <set>

#include "conf/base/text.h"
#include "conf/image_formats.h"
#include "conf/validate.h"
#include "conf/validate_parts.h"

namespace virtuserns {

namespace {

constexpr std::uint64_t kSectorBytes = 512;     // a loop device has no smaller unit
constexpr std::uint32_t kMostPartitions = 256;  // more than the kernel itself shows of a disk
constexpr std::size_t kMostOption = 255;        // of a value of fsconfig(2)
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 62;

Result<void> validate_bytes(const std::optional<std::uint64_t>& bytes, const std::string& what) {
  if (bytes && (*bytes % kSectorBytes != 0 || *bytes > kMostBytes))
    return xml_error(what + "='" + std::to_string(*bytes) + "' must be a multiple of 512 bytes");
  return {};
}

Result<void> validate_part(const ImagePartDef& part, const std::string& name) {
  if (part.partition && (*part.partition == 0 || *part.partition > kMostPartitions))
    return xml_error(name + ": partition='" + std::to_string(*part.partition) + "' must be between 1 and " +
                     std::to_string(kMostPartitions));
  if (part.partition && (part.offset_bytes || part.size_bytes))
    return xml_error(name + ": a partition says where it begins and ends: leave out offset and size, or partition");
  TRY(validate_bytes(part.offset_bytes, name + ": offset"));
  TRY(validate_bytes(part.size_bytes, name + ": size"));
  if (part.size_bytes && *part.size_bytes == 0) return xml_error(name + ": size must not be 0");
  if (has_control(part.subvolume) || has_dot_dot(part.subvolume) || part.subvolume.size() > kMostOption)
    return xml_error(name + ": subvolume " + quote(part.subvolume) + " must be a path without '..', such as '@'");
  return {};
}

Result<void> validate_backings(const ImagePartDef& part, const std::string& name) {
  if (part.backings.size() >= kMaxImageChain)
    return xml_error(name + ": an image and what is below it are at most " + std::to_string(kMaxImageChain) +
                     " files");
  for (const auto& backing : part.backings) {
    TRY(validate_absolute(backing.file, name + ": file of <userns:backing>"));
    if (!is_image_format(backing.format))
      return xml_error(name + ": format " + quote(backing.format) + " of <userns:backing> is unknown: known are " +
                       image_format_names());
  }
  return {};
}

}  // namespace

std::string image_format_names() {
  std::string names;
  for (const auto format : kImageFormats) names += (names.empty() ? "'" : ", '") + std::string(format) + "'";
  return names;
}

Result<void> validate_images(const std::vector<ImagePartDef>& images) {
  std::set<std::string> targets;
  for (const auto& part : images) {
    const std::string name = "<userns:image> " + quote(part.target);
    TRY(validate_absolute(part.target, "target of <userns:image>"));
    if (!targets.insert(tidy_path(part.target)).second) return xml_error(name + " appears twice");
    TRY(validate_part(part, name));
    TRY(validate_backings(part, name));
  }
  return {};
}

bool is_image(const FilesystemDef& fs) {
  return fs.type == FilesystemType::kFile || fs.type == FilesystemType::kBlock;
}

const ImagePartDef* find_image_part(const DomainDef& def, const FilesystemDef& fs) {
  for (const auto& part : def.userns.images)
    if (is_image(fs) && tidy_path(part.target) == tidy_path(fs.target)) return &part;
  return nullptr;
}

std::vector<std::string> unused_image_parts(const DomainDef& def) {
  std::vector<std::string> targets;
  for (const auto& part : def.userns.images) {
    bool is_used = false;
    for (const auto& fs : def.filesystems) is_used = is_used || find_image_part(def, fs) == &part;
    if (!is_used) targets.push_back(part.target);
  }
  return targets;
}

}  // namespace virtuserns
