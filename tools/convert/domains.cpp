#include "tools/convert/domains.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <cstdlib>
#include <memory>

#include "conf/base/text.h"

namespace virtuserns::convert {
namespace {

struct Close {
  void operator()(virConnectPtr connection) const { ::virConnectClose(connection); }
  void operator()(virDomainPtr domain) const { ::virDomainFree(domain); }
};
using Connection = std::unique_ptr<virConnect, Close>;
using Domain = std::unique_ptr<virDomain, Close>;

Error last_error(const std::string& what) {
  const virErrorPtr error = ::virGetLastError();
  return fail(error ? error->code : VIR_ERR_INTERNAL_ERROR,
              what + ": " + printable(error && error->message ? error->message : "no reason given", 1024));
}

Result<Connection> connect(const std::string& uri) {
  // Errors are returned, and said once.
  ::virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
  Connection connection(::virConnectOpen(uri.c_str()));
  if (!connection) return last_error("connect to " + quote(uri));
  return connection;
}

bool is_missing() {
  const virErrorPtr error = ::virGetLastError();
  return error && error->code == VIR_ERR_NO_DOMAIN;
}

// Null: there is none.
Result<Domain> find(const Connection& connection, const std::string& uuid) {
  Domain domain(::virDomainLookupByUUIDString(connection.get(), uuid.c_str()));
  if (!domain && !is_missing()) return last_error("look for domain " + quote(uuid));
  return domain;
}

Result<DomainState> state_of(const Domain& domain) {
  const int active = ::virDomainIsActive(domain.get());
  if (active < 0) return last_error("ask for the state of a domain");
  return active ? DomainState::kActive : DomainState::kShutOff;
}

}  // namespace

Result<SourceDomain> read_domain(const std::string& uri, const std::string& name) {
  const auto connection = TRY(connect(uri));
  Domain domain(::virDomainLookupByName(connection.get(), name.c_str()));
  if (!domain) domain.reset(::virDomainLookupByUUIDString(connection.get(), name.c_str()));
  if (!domain) return fail(VIR_ERR_NO_DOMAIN, quote(uri) + " has no domain " + quote(name));
  SourceDomain source;
  source.name = ::virDomainGetName(domain.get());
  char uuid[VIR_UUID_STRING_BUFLEN];
  if (::virDomainGetUUIDString(domain.get(), uuid) != 0) return last_error("ask for an uuid");
  source.uuid = uuid;
  source.is_active = TRY(state_of(domain)) == DomainState::kActive;
  const std::unique_ptr<char, decltype(&::free)> xml(::virDomainGetXMLDesc(domain.get(), VIR_DOMAIN_XML_INACTIVE),
                                                     &::free);
  if (!xml) return last_error("read the definition of " + quote(name));
  source.xml = xml.get();
  int autostart = 0;
  if (::virDomainGetAutostart(domain.get(), &autostart) == 0) source.autostart = autostart != 0;
  return source;
}

Result<DomainState> look_up_domain(const std::string& uri, const std::string& uuid) {
  const auto connection = TRY(connect(uri));
  const auto domain = TRY(find(connection, uuid));
  return domain ? state_of(domain) : DomainState::kMissing;
}

Result<void> check_is_free(const std::string& uri, const std::string& name, const std::string& uuid) {
  const auto connection = TRY(connect(uri));
  const Domain same_name(::virDomainLookupByName(connection.get(), name.c_str()));
  if (!same_name && !is_missing()) return last_error("look for domain " + quote(name));
  if (same_name)
    return fail(VIR_ERR_OPERATION_FAILED,
                quote(uri) + " has a domain " + quote(name) + " already; choose another --name");
  if (TRY(find(connection, uuid)))
    return fail(VIR_ERR_OPERATION_FAILED,
                quote(uri) + " has a domain with uuid " + uuid + " already; a second one needs --clone");
  return {};
}

Result<void> define_domain(const std::string& uri, const std::string& xml, bool autostart) {
  const auto connection = TRY(connect(uri));
  const Domain domain(::virDomainDefineXML(connection.get(), xml.c_str()));
  if (!domain) return last_error("define the container");
  if (autostart && ::virDomainSetAutostart(domain.get(), 1) != 0) return last_error("set autostart");
  return {};
}

Result<void> start_domain(const std::string& uri, const std::string& uuid) {
  const auto connection = TRY(connect(uri));
  const auto domain = TRY(find(connection, uuid));
  if (!domain) return fail(VIR_ERR_NO_DOMAIN, "the container is not defined any more");
  if (::virDomainCreate(domain.get()) != 0) return last_error("start the container");
  return {};
}

Result<void> undefine_domain(const std::string& uri, const std::string& uuid) {
  const auto connection = TRY(connect(uri));
  const auto domain = TRY(find(connection, uuid));
  if (!domain) return {};
  if (TRY(state_of(domain)) == DomainState::kActive)
    return fail(VIR_ERR_OPERATION_INVALID, "the container runs; shut it off first");
  if (::virDomainUndefine(domain.get()) != 0 && !is_missing()) return last_error("undefine the container");
  return {};
}

}  // namespace virtuserns::convert
