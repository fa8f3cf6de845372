// showinfo config: the id maps of domains in the words of lxc.container.conf(5) as the talk has them, which lxc and
// virConnectDomainXMLFromNative read.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns::showinfo {

struct DomainMap {
  std::string name;
  IdMapDef map;
};

// VIR_ERR_CONFIG_UNSUPPORTED, with the domain's name, when it has no map or one whose ranges are not chosen yet.
[[nodiscard]] Result<DomainMap> read_domain_map(std::string_view xml);

// "# web", then "lxc.id_map = u 0 2000000 65536" for each line, uids first.
[[nodiscard]] std::string format_config(const std::vector<DomainMap>& maps);
[[nodiscard]] std::string format_config_json(const std::vector<DomainMap>& maps);

}  // namespace virtuserns::showinfo
