#include "tools/convert/guest.h"

#include <algorithm>
#include <array>

#include "conf/base/text.h"

namespace virtuserns::convert {

namespace {

constexpr std::array kUnitDirs = {"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
                                  "/lib/systemd/system"};
constexpr const char* kAdminUnits = "/etc/systemd/system/";
constexpr std::string_view kRunLevels = "S0123456";

std::string without_service(const std::string& unit) {
  return unit.ends_with(".service") ? unit.substr(0, unit.size() - 8) : unit;
}

std::string unquote(std::string_view value) {
  value = trim(value);
  if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front())
    value = value.substr(1, value.size() - 2);
  return std::string(value);
}

// "getty@tty1.service" is made by "getty@.service".
std::string template_of(const std::string& unit) {
  const auto at = unit.find('@'), dot = unit.rfind('.');
  if (at == std::string::npos || dot == std::string::npos || dot < at) return unit;
  return unit.substr(0, at + 1) + unit.substr(dot);
}

InitSystem find_init(const GuestFiles& files) {
  auto name = files.final_name("/sbin/init");
  if (name.empty()) name = files.final_name("/usr/sbin/init");
  if (name.empty()) return InitSystem::kNone;
  if (name == "systemd") return InitSystem::kSystemd;
  if (name == "openrc-init" || (files.exists("/sbin/openrc") && files.exists("/etc/runlevels")))
    return InitSystem::kOpenRc;
  if (name == "busybox") return InitSystem::kBusybox;
  return files.exists("/etc/inittab") ? InitSystem::kSysV : InitSystem::kOther;
}

// "/etc/rc2.d" and "/etc/rc.d/rc2.d", where they are.
std::vector<std::string> runlevel_dirs() {
  std::vector<std::string> dirs;
  for (const char level : kRunLevels)
    for (const std::string prefix : {"/etc/rc", "/etc/rc.d/rc"}) dirs.push_back(prefix + level + ".d");
  return dirs;
}

bool is_start_link(const std::string& name, const std::string& service) {
  return name.size() == service.size() + 3 && name[0] == 'S' && name.ends_with(service);
}

}  // namespace

OsRelease parse_os_release(std::string_view text) {
  OsRelease os;
  for (const auto line : split(text, '\n')) {
    const auto equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const auto key = trim(line.substr(0, equals));
    if (key == "ID") os.id = unquote(line.substr(equals + 1));
    if (key == "ID_LIKE") os.id_like = unquote(line.substr(equals + 1));
    if (key == "PRETTY_NAME") os.pretty_name = unquote(line.substr(equals + 1));
  }
  return os;
}

std::vector<std::string> config_lines(std::string_view text) {
  std::vector<std::string> lines;
  for (const auto line : split(text, '\n')) {
    const auto trimmed = trim(line);
    if (!trimmed.empty() && trimmed.front() != '#' && trimmed.front() != ';') lines.emplace_back(trimmed);
  }
  return lines;
}

Guest::Guest(GuestFiles& guest_files, const GuestOptions& guest_options)
    : files(guest_files), options(guest_options) {
  auto text = files.read_or_empty("/etc/os-release");
  if (text.empty()) text = files.read_or_empty("/usr/lib/os-release");
  os_ = parse_os_release(text);
  init_ = find_init(files);
  find_units();
}

void Guest::add(Severity severity, std::string object, std::string text, std::string remedy) {
  findings.push_back({severity, std::move(object), std::move(text), std::move(remedy)});
}

bool Guest::replace(const std::string& path, std::string text) {
  const auto done = files.replace(path, std::move(text));
  if (!done) add(Severity::kLoss, path, "cannot be changed: " + done.error().text);
  return static_cast<bool>(done);
}

bool Guest::remove(const std::string& path) {
  const auto done = files.remove(path);
  if (!done) add(Severity::kLoss, path, "cannot be removed: " + done.error().text);
  return static_cast<bool>(done);
}

void Guest::find_units() {
  if (init_ == InitSystem::kOpenRc) {
    for (const auto& level : files.list("/etc/runlevels"))
      for (const auto& name : files.list("/etc/runlevels/" + level)) enabled_.insert(name + ".service");
    return;
  }
  for (const auto& dir : runlevel_dirs()) {
    if (dir.ends_with("c0.d") || dir.ends_with("c6.d")) continue;
    for (const auto& name : files.list(dir))
      if (name.size() > 3 && name[0] == 'S') enabled_.insert(name.substr(3) + ".service");
  }
  if (init_ != InitSystem::kSystemd) return;
  for (const std::string dir : kUnitDirs) {
    for (const auto& name : files.list(dir)) {
      const bool pulls_in = name.ends_with(".wants") || name.ends_with(".requires");
      if (pulls_in)
        for (const auto& unit : files.list(dir + "/" + name)) enabled_.insert(unit);
      // An alias, as display-manager.service: what it leads to is on.
      else if (dir == kUnitDirs[0] && name.find(".service") != std::string::npos)
        if (const auto target = files.read_link(dir + "/" + name); target && *target != "/dev/null")
          enabled_.insert(target->substr(target->rfind('/') + 1));
    }
  }
  std::erase_if(enabled_, [&](const std::string& unit) {
    const auto target = files.read_link(kAdminUnits + unit);
    return target && *target == "/dev/null";
  });
}

bool Guest::has_unit(const std::string& unit) const {
  if (init_ != InitSystem::kSystemd || unit.ends_with(".service"))
    if (files.exists("/etc/init.d/" + without_service(unit))) return true;
  if (init_ != InitSystem::kSystemd) return false;
  return std::any_of(kUnitDirs.begin(), kUnitDirs.end(), [&](const std::string& dir) {
    return files.exists(dir + "/" + unit) || files.exists(dir + "/" + template_of(unit));
  });
}

bool Guest::is_enabled(const std::string& unit) const { return enabled_.contains(unit); }

bool Guest::disable(const std::string& unit) {
  if (init_ == InitSystem::kSystemd) {
    const auto place = kAdminUnits + unit;
    const bool is_masked = std::any_of(kUnitDirs.begin(), kUnitDirs.end(), [&](const std::string& dir) {
      const auto target = files.read_link(dir + "/" + unit);
      return target && *target == "/dev/null";
    });
    if (is_masked || !has_unit(unit)) return false;
    if (const auto done = files.symlink(place, "/dev/null"); !done) {
      add(Severity::kLoss, place, "cannot be masked: " + done.error().text);
      return false;
    }
    return enabled_.erase(unit), true;
  }
  const auto service = without_service(unit);
  bool is_changed = false;
  if (init_ == InitSystem::kOpenRc) {
    for (const auto& level : files.list("/etc/runlevels"))
      if (files.exists("/etc/runlevels/" + level + "/" + service))
        is_changed |= remove("/etc/runlevels/" + level + "/" + service);
  } else {
    for (const auto& dir : runlevel_dirs())
      for (const auto& name : files.list(dir))
        if (is_start_link(name, service)) is_changed |= remove(dir + "/" + name);
  }
  enabled_.erase(unit);
  return is_changed;
}

std::vector<std::string> Guest::list_paths(const std::string& directory, std::string_view suffix) const {
  std::vector<std::string> paths;
  for (const auto& name : files.list(directory))
    if (name.ends_with(suffix)) paths.push_back(directory + "/" + name);
  return paths;
}

}  // namespace virtuserns::convert
