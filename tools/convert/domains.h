// Domains of any libvirt connection, by libvirt's own client library: the VM is read there, the container defined.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::convert {

struct SourceDomain {
  std::string name, uuid, xml;  // the persistent definition
  bool is_active = false;       // running or paused
  std::optional<bool> autostart;
};
[[nodiscard]] Result<SourceDomain> read_domain(const std::string& uri, const std::string& name);

enum class DomainState { kMissing, kShutOff, kActive };
[[nodiscard]] Result<DomainState> look_up_domain(const std::string& uri, const std::string& uuid);
// VIR_ERR_OPERATION_FAILED where another domain has the name or the uuid.
[[nodiscard]] Result<void> check_is_free(const std::string& uri, const std::string& name, const std::string& uuid);

[[nodiscard]] Result<void> define_domain(const std::string& uri, const std::string& xml, bool autostart);
[[nodiscard]] Result<void> set_autostart(const std::string& uri, const std::string& uuid, bool is_wanted);
[[nodiscard]] Result<void> start_domain(const std::string& uri, const std::string& uuid);
// A link of a container that the host has an end of.
struct ContainerLink {
  std::string name;  // of the host's end
  std::string mac;   // of the container's
  std::vector<std::string> addresses;
};
[[nodiscard]] Result<std::vector<ContainerLink>> list_links(const std::string& uri, const std::string& uuid);
// One that is missing is no error, one that is active is.
[[nodiscard]] Result<void> undefine_domain(const std::string& uri, const std::string& uuid);

}  // namespace virtuserns::convert
