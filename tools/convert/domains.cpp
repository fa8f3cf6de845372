#include "tools/convert/domains.h"

#include <cstdlib>

#include "conf/base/text.h"
#include "tools/convert/connection.h"

namespace virtuserns::convert {
namespace {

bool is_missing() { return ::virGetLastErrorCode() == VIR_ERR_NO_DOMAIN; }

Result<DomainState> state_of(const Domain& domain) {
  return TRY(is_active(domain)) ? DomainState::kActive : DomainState::kShutOff;
}

}  // namespace

Result<SourceDomain> read_domain(const std::string& uri, const std::string& name) {
  const auto connection = TRY(open_connection(uri));
  Domain domain(::virDomainLookupByName(connection.get(), name.c_str()));
  if (!domain) domain.reset(::virDomainLookupByUUIDString(connection.get(), name.c_str()));
  if (!domain) return fail(VIR_ERR_NO_DOMAIN, quote(uri) + " has no domain " + quote(name));
  SourceDomain source;
  source.name = ::virDomainGetName(domain.get());
  char uuid[VIR_UUID_STRING_BUFLEN];
  if (::virDomainGetUUIDString(domain.get(), uuid) != 0) return last_error("ask for an uuid");
  source.uuid = uuid;
  source.is_active = TRY(state_of(domain)) == DomainState::kActive;
  source.xml = TRY(read_xml(domain, VIR_DOMAIN_XML_INACTIVE), quote(name));
  int autostart = 0;
  if (::virDomainGetAutostart(domain.get(), &autostart) == 0) source.autostart = autostart != 0;
  return source;
}

Result<DomainState> look_up_domain(const std::string& uri, const std::string& uuid) {
  const auto connection = TRY(open_connection(uri));
  const auto domain = TRY(find_domain(connection, uuid));
  return domain ? state_of(domain) : DomainState::kMissing;
}

Result<void> check_is_free(const std::string& uri, const std::string& name, const std::string& uuid) {
  const auto connection = TRY(open_connection(uri));
  const Domain same_name(::virDomainLookupByName(connection.get(), name.c_str()));
  if (!same_name && !is_missing()) return last_error("look for domain " + quote(name));
  if (same_name)
    return fail(VIR_ERR_OPERATION_FAILED,
                quote(uri) + " has a domain " + quote(name) + " already; choose another --name");
  if (TRY(find_domain(connection, uuid)))
    return fail(VIR_ERR_OPERATION_FAILED,
                quote(uri) + " has a domain with uuid " + uuid + " already; a second one needs --clone");
  return {};
}

Result<void> define_domain(const std::string& uri, const std::string& xml, bool autostart) {
  const auto connection = TRY(open_connection(uri));
  const Domain domain(::virDomainDefineXML(connection.get(), xml.c_str()));
  if (!domain) return last_error("define the container");
  if (autostart && ::virDomainSetAutostart(domain.get(), 1) != 0) return last_error("set autostart");
  return {};
}

Result<void> set_autostart(const std::string& uri, const std::string& uuid, bool is_wanted) {
  const auto connection = TRY(open_connection(uri));
  const auto domain = TRY(find_domain(connection, uuid));
  if (!domain) return fail(VIR_ERR_NO_DOMAIN, "the container is not defined any more");
  if (::virDomainSetAutostart(domain.get(), is_wanted ? 1 : 0) != 0) return last_error("set autostart");
  return {};
}

Result<void> start_domain(const std::string& uri, const std::string& uuid) {
  const auto connection = TRY(open_connection(uri));
  const auto domain = TRY(find_domain(connection, uuid));
  if (!domain) return fail(VIR_ERR_NO_DOMAIN, "the container is not defined any more");
  if (::virDomainCreate(domain.get()) != 0) return last_error("start the container");
  return {};
}

Result<std::vector<ContainerLink>> list_links(const std::string& uri, const std::string& uuid) {
  const auto connection = TRY(open_connection(uri));
  const auto domain = TRY(find_domain(connection, uuid));
  if (!domain) return fail(VIR_ERR_NO_DOMAIN, "the container is not defined any more");
  virDomainInterfacePtr* found = nullptr;
  const int count = ::virDomainInterfaceAddresses(domain.get(), &found, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, 0);
  if (count < 0) return last_error("ask for the addresses of the container");
  std::vector<ContainerLink> links;
  for (int i = 0; i < count; ++i) {
    ContainerLink link{found[i]->name, found[i]->hwaddr ? found[i]->hwaddr : "", {}};
    for (unsigned j = 0; j < found[i]->naddrs; ++j) link.addresses.emplace_back(found[i]->addrs[j].addr);
    links.push_back(std::move(link));
    ::virDomainInterfaceFree(found[i]);
  }
  std::free(found);
  return links;
}

Result<void> undefine_domain(const std::string& uri, const std::string& uuid) {
  const auto connection = TRY(open_connection(uri));
  const auto domain = TRY(find_domain(connection, uuid));
  if (!domain) return {};
  if (TRY(state_of(domain)) == DomainState::kActive)
    return fail(VIR_ERR_OPERATION_INVALID, "the container runs; shut it off first");
  if (::virDomainUndefine(domain.get()) != 0 && !is_missing()) return last_error("undefine the container");
  return {};
}

}  // namespace virtuserns::convert
