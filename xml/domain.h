// <domain>: text to DomainDef and back (formatdomain.rst; the printed form is virDomainDefFormat's, byte for byte,
// for what libvirt's LXC driver honours).
//
// Parsing fills no defaults that depend on a host or on chance (conf/defaults.h does) and applies no rule about the
// domain as a whole (conf/validate.h does); it refuses what cannot be understood: wrong types, unknown words in an
// enumeration, an element twice where one is meant. Everything it does not know is kept (KeptXml). Pure, thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns::xml {

// Bits of parse_domain's flags.
enum ParseFlags : unsigned {
  kParseInactive = 0,  // as define and create take it: what only live XML has (id, ttys, aliases, vnetN) is forgotten
  kParseLive = 1,      // keep it: status files
  kParseSchema = 2,    // VIR_DOMAIN_DEFINE_VALIDATE: first check the text against libvirt's own domain.rng
};

// Errors: VIR_ERR_XML_ERROR, VIR_ERR_XML_DETAIL, VIR_ERR_CONFIG_UNSUPPORTED, VIR_ERR_XML_INVALID_SCHEMA; "line N:
// ...".
[[nodiscard]] Result<DomainDef> parse_domain(std::string_view text, unsigned flags = kParseInactive);

// kInactive: the definition. kActive: with id, aliases, ttys and host-side names. kStatus: as kActive, for the status
// file. A definition with id -1 is always printed as kInactive.
enum class FormatKind { kInactive, kActive, kStatus };
// kShow is VIR_DOMAIN_XML_SECURE: without it passwords (of kept <graphics>) are left out.
enum class Secrets { kHide, kShow };
[[nodiscard]] std::string format_domain(const DomainDef& def, FormatKind kind, Secrets secrets = Secrets::kHide);

}  // namespace virtuserns::xml
