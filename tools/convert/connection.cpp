#include "tools/convert/connection.h"

#include <libvirt/virterror.h>

#include <cstdlib>

#include "conf/base/text.h"

namespace virtuserns::convert {

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

Result<Domain> find_domain(const Connection& connection, const std::string& uuid) {
  Domain domain(::virDomainLookupByUUIDString(connection.get(), uuid.c_str()));
  if (!domain && ::virGetLastErrorCode() != VIR_ERR_NO_DOMAIN) return last_error("look for domain " + quote(uuid));
  return domain;
}

Result<bool> is_active(const Domain& domain) {
  const int active = ::virDomainIsActive(domain.get());
  if (active < 0) return last_error("ask for the state of a domain");
  return active != 0;
}

Result<void> await_jobs(const Domain& domain, const std::string& disk_target) {
  // A question that has to wait for its turn. What it answers, and whether it can, does not matter.
  virDomainBlockInfo ignored{};
  if (::virDomainGetBlockInfo(domain.get(), disk_target.c_str(), &ignored, 0) != 0 &&
      ::virGetLastErrorCode() == VIR_ERR_OPERATION_TIMEOUT)
    return last_error("wait for what libvirt does with the machine");
  return {};
}

Result<std::string> read_xml(const Domain& domain, unsigned flags) {
  const std::unique_ptr<char, decltype(&::free)> xml(::virDomainGetXMLDesc(domain.get(), flags), &::free);
  if (!xml) return last_error("read a definition");
  return std::string(xml.get());
}

}  // namespace virtuserns::convert
