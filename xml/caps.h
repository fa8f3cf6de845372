// <capabilities> and <domainCapabilities>, as libvirt prints them (virCapabilitiesFormatXML, virDomainCapsFormat):
// valid under capability.rng and domaincaps.rng.
#pragma once

#include <string>

#include "conf/capabilities.h"

namespace virtuserns::xml {

[[nodiscard]] std::string format_capabilities(const Capabilities& caps);
[[nodiscard]] std::string format_domain_capabilities(const DomainCapabilities& caps);

}  // namespace virtuserns::xml
