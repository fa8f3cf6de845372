// What is known of the places that edits changed, and its file: for originals.cpp.
#pragma once

#include <sys/stat.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::convert {

enum class PlaceKind { kNothing, kFile, kLink };

// What stood, or stands, at a place; all that is to be brought back but the bytes of a file.
struct PlaceState {
  PlaceKind kind = PlaceKind::kNothing;
  std::uint32_t uid = 0, gid = 0, mode = 0644;
  timespec accessed{}, modified{};
  std::map<std::string, std::string> xattrs;
  std::string target;  // of a link
};

struct ManifestEntry {
  std::string path;
  PlaceState original;
  PlaceKind edited = PlaceKind::kNothing;
  std::string edited_target;
};

struct ManifestDirectory {
  std::string path;
  timespec accessed{}, modified{};
};

struct Manifest {
  std::vector<ManifestEntry> entries;          // entry N has N.original and N.edited
  std::vector<ManifestDirectory> directories;  // that were there; one for each parent of an entry
  std::vector<std::string> made;               // directories that an edit makes, parents first
};

[[nodiscard]] std::string format_manifest(const Manifest& manifest);
// VIR_ERR_OPERATION_FAILED for anything that format_manifest does not write.
[[nodiscard]] Result<Manifest> parse_manifest(std::string_view text);

}  // namespace virtuserns::convert
