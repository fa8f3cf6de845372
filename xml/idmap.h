// <idmap>: <uid|gid start='' target='' count=''/>. A missing target is our extension (the range broker chooses);
// start and count are needed. What a map may say is conf/validate.h's business.
#pragma once

#include "conf/base/result.h"
#include "conf/domain.h"
#include "conf/idmap.h"
#include "xml/node.h"
#include "xml/writer.h"

namespace virtuserns::xml {

[[nodiscard]] Result<IdMapDef> parse_idmap(const Node& node);
[[nodiscard]] Element make_idmap(const IdMapDef& map);

// Maps whose targets are known, below <idmaps> of a status file.
[[nodiscard]] Result<IdMaps> parse_idmap_lines(const Node& node);
[[nodiscard]] Element make_idmap_lines(const std::string& name, const IdMaps& maps);

}  // namespace virtuserns::xml
