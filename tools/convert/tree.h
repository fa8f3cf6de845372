// Trees of files: copied with all that they have, and removed. No link is followed, no mount left out, no file executed.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/findings.h"

namespace virtuserns::convert {

struct CopyCount {
  std::uint64_t entries = 0, bytes = 0;  // bytes: data and attributes that were written, holes not
};

struct Copied : CopyCount {
  timespec newest_change{};       // of all that was looked at in the source: the latest ctime before `own_since`
  std::vector<Finding> findings;  // what was left out: device nodes, flags, security labels
};

// Everything below `from` into the empty directory `to`, with its own mode, owner, xattrs and times too: holes, hard links,
// ACLs, capabilities, setuid bits, fifos and sockets are kept. Paths longer than 4095 bytes, and more data than
// `max_bytes`, end it with an error. `progress` is called now and then. What was changed at `own_since` or later was changed by us.
[[nodiscard]] Result<Copied> copy_tree(const DirFd& from, const DirFd& to, std::uint64_t max_bytes,
                                       const std::function<void(const CopyCount&)>& progress,
                                       time_t own_since = std::numeric_limits<time_t>::max());

// As copy_tree, onto an older state of the same tree: files of the same size and time are not written again, so that those
// which a boot loader finds by their blocks stay where they are, and immutable where they are; what `from` has not is removed,
// device nodes excepted. Hard links from one mount below `to` to another become files of their own, with a finding.
// `doubtful_since`: a file whose inode has changed then or later (ctime) is written again, whatever its size and time say.
[[nodiscard]] Result<Copied> update_tree(const DirFd& from, const DirFd& to, std::uint64_t max_bytes,
                                         const std::function<void(const CopyCount&)>& progress,
                                         const std::optional<timespec>& doubtful_since = std::nullopt);

// The entry `name` of `parent` and everything below; one that is missing is no error. Stays on its file system: a mount
// below is an error.
[[nodiscard]] Result<void> remove_tree(const DirFd& parent, const std::string& name);

}  // namespace virtuserns::convert
