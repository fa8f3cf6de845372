// Files that must survive a crash, and files that are not to be trusted.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns {

inline constexpr std::size_t kMaxFileBytes = 16 * 1024 * 1024;

// Reads a regular file, at most `max_bytes` (a longer one is an error). Never blocks: a FIFO, device or symlink at
// the last component is refused. errno of the open is in Error::sys_errno (ENOENT to tell "missing").
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t max_bytes = kMaxFileBytes);
[[nodiscard]] Result<std::string> read_file_at(const DirFd& dir, const std::string& name,
                                               std::size_t max_bytes = kMaxFileBytes);
// As read_file, for /proc, /sys and /sys/fs/cgroup, whose files say size 0. Follows symlinks.
[[nodiscard]] Result<std::string> read_kernel_file(const std::string& path, std::size_t max_bytes = kMaxFileBytes);
[[nodiscard]] Result<std::string> read_kernel_file_at(const DirFd& dir, const std::string& name,
                                                      std::size_t max_bytes = kMaxFileBytes);

// Durable replacement: temp in the same directory, fsync, rename, fsync(directory). After an error the old file is
// intact and the temp is gone.
[[nodiscard]] Result<void> write_atomic(const std::string& path, std::string_view content, mode_t mode = 0600);
// As write_atomic without the two fsyncs: for files that need not outlive the machine (/run), yet must never be torn.
[[nodiscard]] Result<void> write_atomic_volatile(const std::string& path, std::string_view content,
                                                 mode_t mode = 0600);
// unlink + fsync(directory); a missing file is not an error.
[[nodiscard]] Result<void> remove_durable(const std::string& path);
[[nodiscard]] Result<void> sync_directory(const std::string& path);
// One write(2) of the whole content to an existing kernel file (cgroup, uid_map, sysctl).
[[nodiscard]] Result<void> write_kernel_file(const std::string& path, std::string_view content);
[[nodiscard]] Result<void> write_kernel_file_at(const DirFd& dir, const std::string& name, std::string_view content);

[[nodiscard]] Result<void> make_directories(const std::string& path, mode_t mode);       // mkdir -p
[[nodiscard]] Result<std::vector<std::string>> list_directory(const std::string& path);  // sorted, without . and ..
[[nodiscard]] Result<DirFd> open_directory(const std::string& path);

// Takes an exclusive lock (OFD lock, released with the descriptor). Busy: VIR_ERR_RESOURCE_BUSY at once.
[[nodiscard]] Result<Fd> lock_file(const std::string& path);

}  // namespace virtuserns
