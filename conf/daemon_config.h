// virtusernsd.conf: libvirtd.conf's syntax (key = value, strings in double quotes, lists in brackets, # comments).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns {

// "anna:br0:10": this user, or each member of a group ("@users:br0:2"), may have so many links on that bridge of the host.
struct UserLinkGrant {
  std::string who;  // login name, decimal uid, or name of a group
  bool is_group = false;
  std::string bridge;
  unsigned limit = 0;
  std::string where;  // "/etc/libvirt/virtusernsd.conf:12: 'anna:br0:10'"
};
inline constexpr unsigned kMostUserLinks = 100;  // of one user: the number is in the link's name

struct DaemonConfig {
  // sockets (names and meaning as in libvirtd.conf)
  std::string unix_sock_group;         // "" : root
  unsigned unix_sock_ro_perms = 0777;  // with auth_unix_ro = "none", 0700 when no group is set: see default rule
  unsigned unix_sock_rw_perms = 0700;  // 0770 when a group is set
  std::string auth_unix_ro = "none";   // none | polkit
  std::string auth_unix_rw = "none";
  // Who may do what once connected. "owner": whoever is neither root nor in one of the groups manages own domains only. Empty: all
  // who may connect to the read-write socket are administrators.
  std::vector<std::string> access_drivers;
  std::vector<std::string> access_admin_groups;
  std::uint32_t max_domains_per_owner = 64;
  // limits (libvirtd's names)
  unsigned max_clients = 5000;
  unsigned max_queued_clients = 1000;
  unsigned max_anonymous_clients = 20;
  unsigned max_clients_per_uid = 500;  // ours: one user cannot lock the others out; root is exempt
  unsigned min_workers = 5, max_workers = 20, prio_workers = 5;
  unsigned max_client_requests = 5;
  int keepalive_interval = 5;  // seconds; -1: no pings from the server
  unsigned keepalive_count = 5;
  // log
  unsigned log_level = 3;  // 1 debug .. 4 error
  std::string log_filters, log_outputs;
  std::string host_uuid;
  // userns driver
  std::uint32_t id_range_first = 2'000'000;  // automatic ranges come out of [first, last]
  std::uint32_t id_range_last = 4'000'000'000;
  std::uint32_t id_range_size = 65'536;
  std::string ids_per = "domain";         // or "project": domains of one of Nova's projects share a range
  std::uint64_t pids_limit = 16'384;      // per domain, unless its definition says otherwise
  std::string cgroup_parent;              // "" : the root of each hierarchy; tests put their own sub-tree here
  bool allow_enter_namespace = false;     // virsh lxc-enter-namespace: see docs/security.md before saying 1
  unsigned shutdown_timeout_s = 30;       // of a domain's own shutdown when the daemon waits for one
  std::vector<UserLinkGrant> user_links;  // what sessions of users may have of the host's bridges
};

// Every key is optional; an unknown key or a value of the wrong type is an error that names file, line and key.
[[nodiscard]] Result<DaemonConfig> parse_daemon_config(const std::string& text, const std::string& file_name);
[[nodiscard]] Result<DaemonConfig> read_daemon_config(const std::string& path);  // a missing file: the defaults

}  // namespace virtuserns
