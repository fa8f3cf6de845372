// Places of a container's tree that are the set-up's own: no <filesystem> may come to lie there.
#pragma once

#include <string_view>

namespace virtuserns {

// `path`: absolute, without "//", "." and "..". A mount at or below /proc or /sys would cover the masks and read-only
// mounts there, at /dev the nodes and terminals. What is left is what containers do mount: names of their own below
// /dev (/dev/shm of another size, /dev/hugepages), and /sys/fs/cgroup, where nothing is masked.
[[nodiscard]] inline bool is_reserved_target(std::string_view path) {
  const auto is_in = [path](std::string_view place) {
    return path.starts_with(place) && (path.size() == place.size() || path[place.size()] == '/');
  };
  if (is_in("/sys/fs/cgroup")) return false;
  return is_in("/proc") || is_in("/sys") || path == "/dev" || is_in("/dev/pts");
}

inline constexpr const char* kReservedTargetRemedy =
    "the domain's own /proc, /sys and /dev would be covered: use a target outside of them, below /dev/shm or "
    "/sys/fs/cgroup, or with a name of its own below /dev";

}  // namespace virtuserns
