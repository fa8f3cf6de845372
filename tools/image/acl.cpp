#include "tools/image/acl.h"

#include <archive.h>
#include <archive_entry.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include <algorithm>
#include <bit>
#include <map>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/idpool.h"
#include "tools/image/confined.h"

namespace virtuserns::image {
namespace {

constexpr std::size_t kMaxLines = 1'000'000;  // of all lists
static_assert(std::endian::native == std::endian::little, "the kernel's form of a list");

Error refused(const std::string& name, const std::string& why) {
  return fail(VIR_ERR_OPERATION_FAILED, "the access control list of " + quote(name) + " " + why);
}

std::uint16_t tag_of(int tag) {
  switch (tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
      return ACL_USER_OBJ;
    case ARCHIVE_ENTRY_ACL_USER:
      return ACL_USER;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
      return ACL_GROUP_OBJ;
    case ARCHIVE_ENTRY_ACL_GROUP:
      return ACL_GROUP;
    case ARCHIVE_ENTRY_ACL_MASK:
      return ACL_MASK;
    case ARCHIVE_ENTRY_ACL_OTHER:
      return ACL_OTHER;
    default:
      return 0;
  }
}

std::map<std::string, std::int64_t> ids_in(const char* path) {
  std::map<std::string, std::int64_t> ids;
  const auto text = read_file(path);
  if (!text) return ids;
  for (const auto& line : parse_accounts(*text)) ids.emplace(line.name, line.id);
  return ids;
}

}  // namespace

struct AclList::Names {
  std::map<std::string, std::int64_t> users = ids_in("/etc/passwd"), groups = ids_in("/etc/group");
};

Result<void> AclList::take(archive_entry* entry, const std::string& name) {
  const int types = ::archive_entry_acl_types(entry);
  if ((types & ARCHIVE_ENTRY_ACL_TYPE_NFS4) != 0) return refused(name, "is of NFSv4's kind");
  if ((types & ARCHIVE_ENTRY_ACL_TYPE_ACCESS) != 0) TRY(take_kind(entry, name, false));
  if ((types & ARCHIVE_ENTRY_ACL_TYPE_DEFAULT) != 0) TRY(take_kind(entry, name, true));
  return {};
}

Result<void> AclList::take_kind(archive_entry* entry, const std::string& name, bool is_default) {
  const int kind = is_default ? ARCHIVE_ENTRY_ACL_TYPE_DEFAULT : ARCHIVE_ENTRY_ACL_TYPE_ACCESS;
  if (::archive_entry_acl_reset(entry, kind) == 0) return {};
  Acl acl{name, is_default, {}};
  int type = 0, permissions = 0, tag = 0, id = 0;
  const char* who = nullptr;
  while (::archive_entry_acl_next(entry, kind, &type, &permissions, &tag, &id, &who) == ARCHIVE_OK) {
    if (++lines_ > kMaxLines) return refused(name, "is one too many");
    Line line{tag_of(tag), static_cast<std::uint16_t>(permissions & 7), 0, ""};
    if (line.tag == ACL_USER || line.tag == ACL_GROUP) {
      line.id = id;
      if (id >= static_cast<int>(kIdCount) || (id < 0 && (!who || !*who)))
        return refused(name, "names the id " + std::to_string(id) + ", which a container has not");
      if (id < 0) line.who = who;
    }
    acl.lines.push_back(std::move(line));
  }
  all_.push_back(std::move(acl));
  return {};
}

Result<void> AclList::apply_one(const Acl& acl, const Names& names) {
  auto lines = acl.lines;
  for (auto& line : lines) {
    if (line.id >= 0) continue;
    const auto& ids = line.tag == ACL_USER ? names.users : names.groups;
    const auto found = ids.find(line.who);
    if (found == ids.end() || found->second >= kIdCount)
      return refused(acl.name, "names " + quote(line.who) + ", who is not in the archive's own /etc");
    line.id = found->second;
  }
  // The order that the kernel wants is that of the tags.
  std::stable_sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) { return a.tag < b.tag; });
  std::vector<posix_acl_xattr_entry> body;
  for (const auto& line : lines) {
    const bool is_named = line.tag == ACL_USER || line.tag == ACL_GROUP;
    body.push_back({line.tag, line.permissions, is_named ? static_cast<std::uint32_t>(line.id) : ~0u});
  }
  const posix_acl_xattr_header header{POSIX_ACL_XATTR_VERSION};
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  bytes.append(reinterpret_cast<const char*>(body.data()), body.size() * sizeof body[0]);
  const auto* attribute = acl.is_default ? "system.posix_acl_default" : "system.posix_acl_access";
  if (::lsetxattr(("/" + acl.name).c_str(), attribute, bytes.data(), bytes.size(), 0) == 0) return {};
  const int why = errno;
  return sys_fail("set the access control list of " + quote(acl.name), why);
}

Result<void> AclList::apply() const {
  if (all_.empty()) return {};
  const Names names;
  for (const auto& acl : all_) TRY(apply_one(acl, names));
  return {};
}

}  // namespace virtuserns::image
