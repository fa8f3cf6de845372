// The files of a guest, below a descriptor of its root directory: hostile input. Every path is resolved by
// openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), so that absolute links and ".." stay in the guest; only regular
// files are read, without blocking, up to a bound.
//
// Edits are staged: read, list and exists show them at once, the disk has them only after commit(). A plan stages the
// very edits that a conversion does, and forgets them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::convert {

inline constexpr std::size_t kMaxGuestFileBytes = 1024 * 1024;
inline constexpr std::size_t kMaxGuestEntries = 4096;  // of one directory
// Of all reads together: what rules read of a guest in practice is some hundred KiB.
inline constexpr std::size_t kMaxGuestTotalBytes = 128 * 1024 * 1024;

enum class GuestType { kMissing, kFile, kDirectory, kLink, kOther };

class GuestFiles {
 public:
  // `root`: opened O_DIRECTORY or O_PATH. Nothing of it is written before commit().
  explicit GuestFiles(DirFd root) : root_(std::move(root)) {}

  // Of the last component itself, which is not followed. What cannot be looked at is missing.
  [[nodiscard]] GuestType type(const std::string& path) const;
  [[nodiscard]] bool exists(const std::string& path) const { return type(path) != GuestType::kMissing; }
  // Follows links, as the guest would. VIR_ERR_OPERATION_FAILED with errno ENOENT where it is missing.
  [[nodiscard]] Result<std::string> read(const std::string& path, std::size_t max_bytes = kMaxGuestFileBytes) const;
  // As read; "" where it is missing or cannot be read.
  [[nodiscard]] std::string read_or_empty(const std::string& path) const;
  // At most the first `bytes` of a file of any size.
  [[nodiscard]] Result<std::string> read_head(const std::string& path, std::size_t bytes) const;
  [[nodiscard]] Result<std::string> read_link(const std::string& path) const;
  // The name, without directories, of what `path` leads to through all links; "" where that is nothing. Not of edits.
  [[nodiscard]] std::string final_name(const std::string& path) const;
  // How many names the file has; 0 where it is none. Not of edits.
  [[nodiscard]] std::uint64_t link_count(const std::string& path) const;
  // Names without . and .., sorted; empty where it is no directory or has too many entries (said by refused()).
  [[nodiscard]] std::vector<std::string> list(const std::string& path) const;
  // The paths that were there and could not be read as what they should be, and why.
  [[nodiscard]] const std::map<std::string, std::string>& refused() const { return refused_; }

  // Staged. The last component is replaced, never followed; missing directories are made. Only files and links are
  // replaced.
  [[nodiscard]] Result<void> replace(const std::string& path, std::string text);
  [[nodiscard]] Result<void> remove(const std::string& path);
  [[nodiscard]] Result<void> symlink(const std::string& path, std::string target);
  [[nodiscard]] std::vector<std::string> staged() const;  // paths, sorted

  // Does what is staged: originals and a manifest are durable in `originals_dir` (outside the guest, made when missing)
  // before the first change; undo_edits() of originals.h brings them back. Afterwards nothing is staged.
  [[nodiscard]] Result<void> commit(const std::string& originals_dir);

 private:
  struct Edit {
    enum class Kind { kReplace, kRemove, kSymlink } kind = Kind::kRemove;
    std::string text;  // content, or target
  };
  [[nodiscard]] Result<Fd> open_regular(const std::string& path) const;
  [[nodiscard]] Result<void> stage(const std::string& path, Edit edit);

  DirFd root_;
  std::map<std::string, Edit> staged_;
  mutable std::map<std::string, std::string> refused_;
  mutable std::size_t bytes_read_ = 0;
};

}  // namespace virtuserns::convert
