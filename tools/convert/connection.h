// libvirt's client library as ours: handles that free themselves, errors that are returned. For domains.cpp, running.cpp and
// way_back.cpp.
#pragma once

#include <libvirt/libvirt.h>

#include <memory>
#include <string>

#include "conf/base/result.h"

namespace virtuserns::convert {

struct FreeHandle {
  void operator()(virConnectPtr connection) const { ::virConnectClose(connection); }
  void operator()(virDomainPtr domain) const { ::virDomainFree(domain); }
  void operator()(virDomainSnapshotPtr snapshot) const { ::virDomainSnapshotFree(snapshot); }
};
using Connection = std::unique_ptr<virConnect, FreeHandle>;
using Domain = std::unique_ptr<virDomain, FreeHandle>;

// What the call before this one has said, with libvirt's own code.
[[nodiscard]] Error last_error(const std::string& what);
[[nodiscard]] Result<Connection> open_connection(const std::string& uri);
// Null: there is none.
[[nodiscard]] Result<Domain> find_domain(const Connection& connection, const std::string& uuid);
[[nodiscard]] Result<bool> is_active(const Domain& domain);
// What others have asked of the machine and is under way is done when this returns: a snapshot of a client that was killed, the
// end of a process. Until then definitions, states and locks do not say what will be.
[[nodiscard]] Result<void> await_jobs(const Domain& domain, const std::string& disk_target);
// flags: VIR_DOMAIN_XML_*.
[[nodiscard]] Result<std::string> read_xml(const Domain& domain, unsigned flags);

}  // namespace virtuserns::convert
