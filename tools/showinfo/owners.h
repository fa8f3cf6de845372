// Whose a host id is: accounts, delegations in /etc/subuid and /etc/subgid, leases of our daemon, running domains.
#pragma once

#include <string>
#include <vector>

#include "conf/idpool.h"
#include "conf/paths.h"
#include "tools/showinfo/host.h"

namespace virtuserns::showinfo {

// What of the files the caller may read; leases are root's.
[[nodiscard]] IdClaims read_claims(const Paths& paths, const Host& host);

// Everybody who claims `id`, "account 'anna' (line 3 of /etc/passwd)".
[[nodiscard]] std::vector<std::string> owners_of(const std::vector<IdClaim>& claims, std::uint32_t id);

}  // namespace virtuserns::showinfo
