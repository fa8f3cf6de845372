#include "tools/showinfo/access.h"

#include <linux/capability.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>

#include "conf/base/text.h"
#include "tools/showinfo/files.h"

namespace virtuserns::showinfo {

namespace {

constexpr std::size_t kMaxAclEntries = 8192;  // of the largest attribute that the kernel has: 64 KiB

template <class T>
T little_endian(std::string_view bytes) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i)
    value = static_cast<T>(value | T{static_cast<unsigned char>(bytes[i])} << (8 * i));
  return value;
}

std::string show_id(std::uint32_t id) { return id == kNoId ? "not mapped" : std::to_string(id); }

std::string octal(mode_t mode) {
  char text[16];
  std::snprintf(text, sizeof text, "%04o", mode & 07777);
  return text;
}

Access by_rights(std::string rule, unsigned rights, unsigned wanted, const std::string& whose) {
  const bool is_allowed = (wanted & ~rights) == 0;
  return {is_allowed, std::move(rule), whose + (is_allowed ? " may " : " may not ") + show_wanted(wanted)};
}

// posix_acl_permission(). nullopt: it names nobody that this process is, and has no last line (no list of a file is so).
std::optional<Access> by_acl(const Subject& subject, const FileFacts& file, unsigned wanted) {
  unsigned mask = 7;
  for (const auto& entry : *file.acl)
    if (entry.tag == AclEntry::kMask) mask = entry.rights;
  const auto decide = [&](const AclEntry& entry, unsigned rights, const std::string& whose) {
    auto access = by_rights("acl", rights, wanted, "by the access control list " + whose);
    if (!access.is_allowed && (wanted & ~unsigned{entry.rights}) == 0)
      access.why += ": the list's mask takes it away";
    return access;
  };
  std::optional<Access> refused;
  for (const auto& entry : *file.acl) {
    const unsigned masked = entry.rights & mask;
    switch (entry.tag) {
      case AclEntry::kUser:
        if (entry.id == subject.who.uid.filesystem) return decide(entry, masked, "uid " + std::to_string(entry.id));
        break;
      case AclEntry::kOwningGroup:
      case AclEntry::kGroup: {
        const auto group = entry.tag == AclEntry::kGroup ? entry.id : file.gid;
        if (!is_in_group(subject, group)) break;
        auto access = decide(entry, masked, "group " + std::to_string(group));
        if (access.is_allowed) return access;
        refused = std::move(access);
        break;
      }
      case AclEntry::kOther:
        if (refused) return refused;
        return decide(entry, entry.rights, "others");
      default:
        break;
    }
  }
  return refused;
}

Access by_mode_and_acl(const Subject& subject, const FileFacts& file, unsigned wanted) {
  const std::string mode = "mode " + octal(file.mode);
  if (subject.who.uid.filesystem == file.uid)
    return by_rights("mode", file.mode >> 6 & 7, wanted,
                     "it is the owner (uid " + show_id(file.uid) + "), who by " + mode);
  // An empty mask of a list is the group's part of the mode: the kernel does not look at the list then.
  if (file.acl && (file.mode & S_IRWXG) != 0)
    if (auto access = by_acl(subject, file, wanted)) return *access;
  if (is_in_group(subject, file.gid))
    return by_rights("mode", file.mode >> 3 & 7, wanted,
                     "it is not the owner (uid " + show_id(file.uid) + ") but in the group (" + show_id(file.gid) +
                         "), which by " + mode);
  return by_rights("mode", file.mode & 7, wanted,
                   "it is neither the owner (uid " + show_id(file.uid) + ") nor in the group (" + show_id(file.gid) +
                       "), and others by " + mode);
}

}  // namespace

std::optional<Acl> parse_acl(std::string_view bytes) {
  constexpr std::size_t kHead = 4, kEntry = 8;
  if (bytes.size() < kHead || (bytes.size() - kHead) % kEntry != 0 || little_endian<std::uint32_t>(bytes) != 2)
    return std::nullopt;
  if ((bytes.size() - kHead) / kEntry > kMaxAclEntries) return std::nullopt;
  Acl acl;
  for (auto rest = bytes.substr(kHead); !rest.empty(); rest.remove_prefix(kEntry))
    acl.push_back({little_endian<std::uint16_t>(rest),
                   static_cast<std::uint16_t>(little_endian<std::uint16_t>(rest.substr(2)) & 7),
                   little_endian<std::uint32_t>(rest.substr(4))});
  return acl;
}

std::string show_wanted(unsigned wanted) {
  std::vector<std::string> words;
  if (wanted & kRead) words.emplace_back("read");
  if (wanted & kWrite) words.emplace_back("write");
  if (wanted & kExecute) words.emplace_back("execute");
  return join(words, " and ");
}

std::string describe_file(const FileFacts& file) {
  std::string text =
      quote(file.path) + ": " + format_mode(file.mode) + ", uid " + show_id(file.uid) + ", gid " + show_id(file.gid);
  if (S_ISCHR(file.mode) || S_ISBLK(file.mode))
    text += ", device " + std::to_string(file.major) + ":" + std::to_string(file.minor);
  if (file.acl) text += ", access control list";
  if (file.is_immutable) text += ", immutable";
  if (!file.filesystem.empty()) text += ", " + file.filesystem;
  if (file.is_read_only_filesystem || file.is_read_only_mount) text += ", read-only";
  if (file.has_nodev) text += ", nodev";
  if (file.has_noexec) text += ", noexec";
  return text;
}

Access check_access(const Subject& subject, const FileFacts& file, unsigned wanted) {
  auto access = by_mode_and_acl(subject, file, wanted);
  if (access.is_allowed) return access;
  const bool is_directory = S_ISDIR(file.mode);
  // CAP_DAC_READ_SEARCH reads files and directories and searches these; CAP_DAC_OVERRIDE everything but execute a file
  // that nobody may execute.
  const bool is_reading = is_directory ? (wanted & kWrite) == 0 : wanted == kRead;
  const bool is_overridable = is_directory || (wanted & kExecute) == 0 || (file.mode & 0111) != 0;
  Holding last{false, "nobody may execute it, so that no capability helps"};
  for (const int capability : {CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE}) {
    if (capability == CAP_DAC_READ_SEARCH ? !is_reading : !is_overridable) continue;
    last = has_capability_over(subject, file.uid, file.gid, capability);
    if (last.is_held) return {true, "capability", access.why + ", but " + last.why};
  }
  access.why += "; " + last.why;
  return access;
}

}  // namespace virtuserns::showinfo
