// A look at every entry of a guest's tree, within bounds: what a container will see differently.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/findings.h"

namespace virtuserns::convert {

struct WalkLimits {
  std::uint64_t max_entries = 5'000'000;
  std::size_t max_depth = 256;
  std::size_t max_examples = 5;  // paths named of each kind
};

struct WalkCount {
  std::uint64_t count = 0;
  std::vector<std::string> examples;  // relative to the root, raw bytes
};

struct Walk {
  std::uint64_t entries = 0, bytes = 0;  // bytes: allocated, of directories and regular files, hard links once
  std::uint32_t highest_uid = 0, highest_gid = 0;
  WalkCount above_map;  // owner, group or an ACL's id is not below `id_count`
  WalkCount immutable, append_only, devices, sockets, fifos, setuid, capabilities, acls;
  bool is_complete = true;  // false: a limit was reached, or a directory could not be read
};

// Stays in the tree of `root`, follows no link, opens directories and regular files only (those to read flags), leaves
// access times alone where the owner of the process may ask for that. Mounts below are walked too.
[[nodiscard]] Result<Walk> walk(const DirFd& root, std::uint32_t id_count, const WalkLimits& limits = {});
[[nodiscard]] std::vector<Finding> findings_of(const Walk& walk, std::uint32_t id_count);

}  // namespace virtuserns::convert
