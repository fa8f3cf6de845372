// showinfo map: what one id is in each user namespace from a process outwards to the caller's own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/idpool.h"
#include "tools/showinfo/host.h"

namespace virtuserns::showinfo {

struct MapLevel {
  NamespaceId id = 0;
  std::string domain;  // or empty
  std::optional<std::uint32_t> here;
  bool is_known = true;  // false: no process lives in it that would show its map
};

struct MapAnswer {
  IdKind kind = IdKind::kUid;
  bool is_mapped = false;
  std::vector<MapLevel> levels;     // innermost first; the last is the caller's own
  std::vector<std::string> owners;  // of the id in the caller's own namespace
};

enum class From { kContainer, kHost };

// VIR_ERR_OPERATION_DENIED when the namespace of `process` is not visible.
[[nodiscard]] Result<MapAnswer> translate(const Host& host, const Process& process, IdKind kind, From from,
                                          std::uint32_t id, const IdClaims& claims);

[[nodiscard]] std::string format_map(const std::vector<MapAnswer>& answers);
[[nodiscard]] std::string format_map_json(const std::vector<MapAnswer>& answers);

}  // namespace virtuserns::showinfo
