// The rules' view of a guest: its files, what it runs, and what was found. For rules*.cpp.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tools/convert/findings.h"
#include "tools/convert/guest_files.h"
#include "tools/convert/rules.h"

namespace virtuserns::convert {

enum class InitSystem { kNone, kSystemd, kOpenRc, kSysV, kBusybox, kOther };

struct OsRelease {
  std::string id;           // "debian"
  std::string id_like;      // "rhel centos fedora"
  std::string pretty_name;  // "Debian GNU/Linux 12 (bookworm)"
};
// os-release(5). Never fails.
[[nodiscard]] OsRelease parse_os_release(std::string_view text);

// Lines of a configuration file without comments ('#' and ';' at the start) and blanks, trimmed.
[[nodiscard]] std::vector<std::string> config_lines(std::string_view text);

class Guest {
 public:
  Guest(GuestFiles& files, const GuestOptions& options);

  GuestFiles& files;
  const GuestOptions& options;
  std::vector<Finding> findings;

  void add(Severity severity, std::string object, std::string text, std::string remedy = {});
  // Staged; what cannot be edited is reported as a loss. False: nothing was staged.
  bool replace(const std::string& path, std::string text);
  bool remove(const std::string& path);

  [[nodiscard]] const OsRelease& os() const { return os_; }
  [[nodiscard]] InitSystem init() const { return init_; }

  // `unit`: "chrony.service". For other inits than systemd it is the script of that name without ".service".
  [[nodiscard]] bool has_unit(const std::string& unit) const;
  [[nodiscard]] bool is_enabled(const std::string& unit) const;
  [[nodiscard]] const std::set<std::string>& enabled_units() const { return enabled_; }
  // Masks it (systemd) or takes it out of the runlevels. False: it was off already, or is not there.
  bool disable(const std::string& unit);

  // The files `suffix` of `directory`, with their paths: "/etc/sysctl.d/x.conf".
  [[nodiscard]] std::vector<std::string> list_paths(const std::string& directory, std::string_view suffix) const;

 private:
  void find_units();

  OsRelease os_;
  InitSystem init_ = InitSystem::kNone;
  std::set<std::string> enabled_;
};

}  // namespace virtuserns::convert
