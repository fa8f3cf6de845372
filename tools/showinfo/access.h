// What modes, access control lists and capabilities say about a file: generic_permission() of the kernel. Pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/showinfo/subject.h"

namespace virtuserns::showinfo {

// An owner that the file's idmapped mount does not map: nobody has this id.
inline constexpr std::uint32_t kNoId = 0xffffffff;

inline constexpr unsigned kExecute = 1, kWrite = 2, kRead = 4;

struct AclEntry {
  // acl(5), as in linux/posix_acl.h
  enum Tag : std::uint16_t { kOwner = 1, kUser = 2, kOwningGroup = 4, kGroup = 8, kMask = 16, kOther = 32 };
  std::uint16_t tag = 0, rights = 0;
  std::uint32_t id = 0;  // of kUser and kGroup
  bool operator==(const AclEntry&) const = default;
};
using Acl = std::vector<AclEntry>;

// The bytes of the attribute system.posix_acl_access. nullopt: not such a list.
[[nodiscard]] std::optional<Acl> parse_acl(std::string_view bytes);

struct FileFacts {
  std::string path;  // as the process names it
  std::uint32_t uid = 0, gid = 0;
  mode_t mode = 0;  // with the kind of file
  std::optional<Acl> acl;
  std::uint32_t major = 0, minor = 0;  // of a device
  bool is_immutable = false, is_append_only = false;
  // of the mount that it is reached through, and of the file system
  bool has_nodev = false, has_noexec = false, is_read_only_mount = false, is_read_only_filesystem = false;
  std::string filesystem;  // its type
};

struct Access {
  bool is_allowed = false;
  std::string rule;  // "owner", "mode", "acl", "capability"
  std::string why;
};

[[nodiscard]] Access check_access(const Subject& subject, const FileFacts& file, unsigned wanted);

[[nodiscard]] std::string show_wanted(unsigned wanted);  // "read and write"
// "'/srv/x': uid 0, gid 0, mode 0640, ext4"
[[nodiscard]] std::string describe_file(const FileFacts& file);

}  // namespace virtuserns::showinfo
