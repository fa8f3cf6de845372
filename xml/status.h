// <domstatus>: what a daemon must know to find a running domain again after it was killed. Written by the back end,
// read by the next daemon, of this version or a later one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "conf/idmap.h"

namespace virtuserns::xml {

// Grows by one with each change that an older daemon would misread. A newer text is refused, an older one is read.
inline constexpr unsigned kStatusVersion = 1;

struct DomainStatus {
  unsigned format_version = kStatusVersion;
  DomainDef live;             // with id, aliases, ttys, host-side names
  int state = 0, reason = 0;  // virDomainState and its reason
  int controller_pid = 0;
  std::uint64_t controller_start_time = 0;  // /proc/PID/stat field 22: tells a reused pid
  int init_pid = 0;                         // in the host's pid namespace; 0: not known yet
  std::uint64_t init_start_time = 0;
  std::uint64_t started_ms = 0;              // since the epoch
  bool persistent = false;                   // there is a definition too
  bool autodestroy = false;                  // ends with the connection that created it
  std::string cgroup;                        // below the root of the hierarchy
  IdMaps maps;                               // as leased and written
  std::map<std::string, std::string> facts;  // whatever else the back end must find again
  bool operator==(const DomainStatus&) const = default;
};

[[nodiscard]] std::string format_status(const DomainStatus& status);
// Strict: an unknown attribute or element is an error, since whoever wrote it meant something. A newer version is
// VIR_ERR_CONFIG_UNSUPPORTED and named.
[[nodiscard]] Result<DomainStatus> parse_status(std::string_view text);
// Whether a program of a later version than this one wrote it, whatever else is in it.
[[nodiscard]] bool is_newer_status(std::string_view text);

}  // namespace virtuserns::xml
