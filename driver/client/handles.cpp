#include "driver/client/handles.h"

#include <libvirt/virterror.h>

#include <cstdlib>

#include "conf/base/text.h"

namespace virtuserns::client {

Error last_error(const std::string& what) {
  const virErrorPtr error = ::virGetLastError();
  return fail(error ? error->code : VIR_ERR_INTERNAL_ERROR,
              what + ": " + printable(error && error->message ? error->message : "no reason given", 1024));
}

Result<Connection> open_connection(const std::string& uri) {
  // Errors are returned, and said once.
  ::virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
  Connection connection(::virConnectOpen(uri.c_str()));
  if (!connection) return last_error("connect to " + quote(uri));
  return connection;
}

Result<Domain> find_domain(virConnectPtr connection, const std::string& uuid) {
  Domain domain(::virDomainLookupByUUIDString(connection, uuid.c_str()));
  if (!domain && ::virGetLastErrorCode() != VIR_ERR_NO_DOMAIN) return last_error("look for domain " + quote(uuid));
  return domain;
}

Result<std::string> read_xml(const Domain& domain, unsigned flags) {
  const std::unique_ptr<char, decltype(&::free)> xml(::virDomainGetXMLDesc(domain.get(), flags), &::free);
  if (!xml) return last_error("read a definition");
  return std::string(xml.get());
}

}  // namespace virtuserns::client
