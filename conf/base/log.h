// Logging: one line per message on stderr with a <N> priority prefix (sd-daemon(3)), or to a file.
//
// Only programs log; a library function returns an Error. Text of foreign origin goes through printable() first:
// log_line does it for the whole message, so no raw control byte ever reaches a log.
#pragma once

#include <string>
#include <string_view>

namespace virtuserns {

enum class LogLevel { kDebug = 1, kInfo = 2, kWarning = 3, kError = 4 };  // libvirtd.conf's log_level

// Thread-safe. `source` is the dotted module name that log_filters match ("rpc.client").
void log_line(LogLevel level, std::string_view source, std::string_view message);
// level: the least that is written; filters: libvirt's "1:rpc 3:userns" (text match on source); outputs:
// "1:stderr" or "3:file:/path". Malformed ones are ignored with a warning.
void configure_log(unsigned level, std::string_view filters, std::string_view outputs);
[[nodiscard]] bool is_logged(LogLevel level, std::string_view source);

inline void log_debug(std::string_view source, std::string_view message) {
  if (is_logged(LogLevel::kDebug, source)) log_line(LogLevel::kDebug, source, message);
}
inline void log_info(std::string_view source, std::string_view message) {
  log_line(LogLevel::kInfo, source, message);
}
inline void log_warning(std::string_view source, std::string_view message) {
  log_line(LogLevel::kWarning, source, message);
}
inline void log_error(std::string_view source, std::string_view message) {
  log_line(LogLevel::kError, source, message);
}

}  // namespace virtuserns
