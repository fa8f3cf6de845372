// lxc.conf (lxc.container.conf(5), new keys and those before LXC 2.1) to DomainDef: virConnectDomainXMLFromNative
// with the format "lxc-tools".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns::xml {

inline constexpr std::size_t kMaxLxcConfigBytes = 1024 * 1024;

struct LxcImport {
  DomainDef def;  // before apply_defaults and validate
  // One line for each key that says something a domain cannot, "line 12: key 'lxc.hook.start' is not imported".
  std::vector<std::string> ignored;
};

// The ids of lxc.idmap are container first, host second: `u 0 2000000 65536` is start 0, target 2000000 (libvirt 9.0
// has them the wrong way round). Pure: reads no file, so lxc.include is reported, not followed. VIR_ERR_INVALID_ARG
// for a text that is not lxc.conf or a value that cannot be understood.
[[nodiscard]] Result<LxcImport> parse_lxc_config(std::string_view text);

}  // namespace virtuserns::xml
