// libvirt's client library as ours: handles that free themselves, errors that are returned.
#pragma once

#include <libvirt/libvirt.h>

#include <memory>
#include <string>

#include "conf/base/result.h"

namespace virtuserns::client {

struct FreeHandle {
  void operator()(virConnectPtr connection) const { ::virConnectClose(connection); }
  void operator()(virDomainPtr domain) const { ::virDomainFree(domain); }
  void operator()(virDomainSnapshotPtr snapshot) const { ::virDomainSnapshotFree(snapshot); }
  void operator()(virStreamPtr stream) const { ::virStreamFree(stream); }
};
using Connection = std::unique_ptr<virConnect, FreeHandle>;
using Domain = std::unique_ptr<virDomain, FreeHandle>;
using Stream = std::unique_ptr<virStream, FreeHandle>;

// What the call before this one, of this thread, has said, with libvirt's own code.
[[nodiscard]] Error last_error(const std::string& what);
[[nodiscard]] Result<Connection> open_connection(const std::string& uri);
// Null: there is none.
[[nodiscard]] Result<Domain> find_domain(virConnectPtr connection, const std::string& uuid);
// flags: VIR_DOMAIN_XML_*.
[[nodiscard]] Result<std::string> read_xml(const Domain& domain, unsigned flags);

}  // namespace virtuserns::client
