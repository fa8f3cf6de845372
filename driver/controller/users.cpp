#include "driver/controller/users.h"

#include "conf/base/text.h"

namespace virtuserns::controller {

namespace {

constexpr std::size_t kMaxGroups = 64;

// Calls visit with the fields of each line that has at least `least` of them, until it returns true.
template <class Visit>
void for_each_line(std::string_view text, std::size_t least, const Visit& visit) {
  while (!text.empty()) {
    const auto end = text.find('\n');
    const auto fields = split(text.substr(0, end), ':');
    if (fields.size() >= least && visit(fields)) return;
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

template <class Match>
std::optional<PasswdEntry> find_entry(std::string_view passwd, const Match& match) {
  std::optional<PasswdEntry> found;
  for_each_line(passwd, 4, [&](const std::vector<std::string_view>& fields) {
    const auto uid = parse_number<uid_t>(fields[2]);
    const auto gid = parse_number<gid_t>(fields[3]);
    // -1 is no id: setresuid(2) takes it for "leave as it is", which would be root.
    if (!uid || !gid || *uid == static_cast<uid_t>(-1) || *gid == static_cast<gid_t>(-1) || !match(fields[0], *uid))
      return false;
    const bool has_home = fields.size() > 5 && fields[5].starts_with('/') && fields[5].size() < 4096;
    found = PasswdEntry{*uid, *gid, has_home ? std::string(fields[5]) : "/"};
    return true;
  });
  return found;
}

}  // namespace

std::optional<PasswdEntry> find_user(std::string_view passwd, std::string_view name) {
  return find_entry(passwd, [&](std::string_view entry, uid_t) { return entry == name; });
}

std::optional<PasswdEntry> find_user(std::string_view passwd, uid_t uid) {
  return find_entry(passwd, [&](std::string_view, uid_t entry) { return entry == uid; });
}

std::optional<gid_t> find_group(std::string_view group_file, std::string_view name) {
  std::optional<gid_t> found;
  for_each_line(group_file, 3, [&](const std::vector<std::string_view>& fields) {
    if (fields[0] != name) return false;
    found = parse_number<gid_t>(fields[2]);
    if (found == static_cast<gid_t>(-1)) found.reset();
    return found.has_value();
  });
  return found;
}

std::vector<gid_t> groups_of(std::string_view group_file, std::string_view user) {
  std::vector<gid_t> groups;
  for_each_line(group_file, 4, [&](const std::vector<std::string_view>& fields) {
    const auto gid = parse_number<gid_t>(fields[2]);
    if (gid)
      for (const auto member : split(fields[3], ','))
        if (trim(member) == user) {
          groups.push_back(*gid);
          break;
        }
    return groups.size() >= kMaxGroups;
  });
  return groups;
}

Result<Identity> resolve_identity(const std::string& user, const std::string& group, std::string_view passwd,
                                  std::string_view group_file) {
  Identity identity;
  if (!user.empty() && user.front() == '+') {
    const auto uid = parse_number<uid_t>(std::string_view(user).substr(1));
    if (!uid || *uid == static_cast<uid_t>(-1))
      return fail(VIR_ERR_CONFIG_UNSUPPORTED, "user " + quote(user) + " is no id");
    identity.uid = *uid;
    if (const auto entry = find_user(passwd, *uid)) {
      identity.gid = entry->gid;
      identity.home = entry->home;
    }
  } else if (!user.empty()) {
    const auto entry = find_user(passwd, std::string_view(user));
    if (!entry) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "the container has no user " + quote(user));
    identity = {entry->uid, entry->gid, groups_of(group_file, user), entry->home};
  } else if (const auto entry = find_user(passwd, uid_t{0})) {
    identity.home = entry->home;
  }
  if (!group.empty() && group.front() == '+') {
    const auto gid = parse_number<gid_t>(std::string_view(group).substr(1));
    if (!gid || *gid == static_cast<gid_t>(-1))
      return fail(VIR_ERR_CONFIG_UNSUPPORTED, "group " + quote(group) + " is no id");
    identity.gid = *gid;
  } else if (!group.empty()) {
    const auto gid = find_group(group_file, group);
    if (!gid) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "the container has no group " + quote(group));
    identity.gid = *gid;
  }
  // As initgroups(3): a named user's list holds the primary group too.
  if (!identity.groups.empty() || (!user.empty() && user.front() != '+'))
    identity.groups.insert(identity.groups.begin(), identity.gid);
  return identity;
}

}  // namespace virtuserns::controller
