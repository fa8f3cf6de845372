#include "tools/convert/connection.h"

#include <libvirt/virterror.h>

namespace virtuserns::convert {

Result<Domain> find_domain(const Connection& connection, const std::string& uuid) {
  return client::find_domain(connection.get(), uuid);
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

}  // namespace virtuserns::convert
