// Names of users and groups of a container, from its own files, by our own bounded parser.
//
// Never by getpwnam: NSS would load libraries out of the container's tree into a process of ours (CVE-2019-14271,
// CVE-2018-6764).
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::controller {

struct PasswdEntry {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string home;  // "/" when the entry has none
};
[[nodiscard]] std::optional<PasswdEntry> find_user(std::string_view passwd, std::string_view name);
[[nodiscard]] std::optional<PasswdEntry> find_user(std::string_view passwd, uid_t uid);
[[nodiscard]] std::optional<gid_t> find_group(std::string_view group_file, std::string_view name);
// Supplementary groups of `user`, at most 64.
[[nodiscard]] std::vector<gid_t> groups_of(std::string_view group_file, std::string_view user);

struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  std::string home = "/";
};
// `user` and `group` as in <inituser>, <initgroup>: a name, or "+N". A digit-only name is a name (CVE-2026-30892).
[[nodiscard]] Result<Identity> resolve_identity(const std::string& user, const std::string& group,
                                                std::string_view passwd, std::string_view group_file);

}  // namespace virtuserns::controller
