// Id ranges and maps: overlap, containment, translation. Pure. user_namespaces(7) is the authority for what the
// kernel accepts; tests/root/idmap_property_test compares validate_kernel_map with write(2) to uid_map.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns {

inline constexpr std::size_t kMaxIdMapLines = 340;  // the kernel's UID_GID_MAP_MAX_EXTENTS

// [first, first + count): host ids. 64-bit arithmetic throughout, so nothing wraps.
struct IdRange {
  std::uint64_t first = 0, count = 0;
  [[nodiscard]] std::uint64_t end() const { return first + count; }
  [[nodiscard]] bool overlaps(const IdRange& other) const { return first < other.end() && other.first < end(); }
  [[nodiscard]] bool contains(const IdRange& other) const { return first <= other.first && other.end() <= end(); }
  auto operator<=>(const IdRange&) const = default;
};

// A line with its target known.
struct IdMapLine {
  std::uint32_t inside = 0, outside = 0, count = 0;
  bool operator==(const IdMapLine&) const = default;
};
using IdMapLines = std::vector<IdMapLine>;

struct IdMaps {
  IdMapLines uid, gid;
  bool operator==(const IdMaps&) const = default;
};

// What the kernel would say to these lines written at once by a privileged process. nullopt: accepted;
// otherwise why not.
[[nodiscard]] std::optional<std::string> refuse_kernel_map(const IdMapLines& lines);
[[nodiscard]] std::optional<std::uint32_t> to_host(const IdMapLines& lines, std::uint32_t inside);
[[nodiscard]] std::optional<std::uint32_t> to_inside(const IdMapLines& lines, std::uint32_t host);
[[nodiscard]] std::vector<IdRange> host_ranges(const IdMapLines& lines);
// "0 2000000 65536\n" per line: the text of /proc/PID/uid_map as the kernel takes it.
[[nodiscard]] std::string format_kernel_map(const IdMapLines& lines);
[[nodiscard]] Result<IdMapLines> parse_kernel_map(const std::string& text);

}  // namespace virtuserns
