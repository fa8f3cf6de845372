// Who asks for a login where, and who reads the kernel's log.
#include <algorithm>

#include "conf/base/text.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

constexpr const char* kOff = "#virtuserns-convert# ";

// "tty1", "ttyS0", "hvc0": lines that a container has not.
bool is_machine_terminal(std::string_view word) {
  if (word.starts_with("/dev/")) word.remove_prefix(5);
  for (const std::string_view prefix : {"ttyS", "ttyAMA", "hvc", "tty"})
    if (word.starts_with(prefix) && word.size() > prefix.size() &&
        std::all_of(word.begin() + static_cast<std::ptrdiff_t>(prefix.size()), word.end(),
                    [](char c) { return c >= '0' && c <= '9'; }))
      return true;
  return false;
}

// inittab(5): id:levels:action:process; busybox: the id is the terminal.
bool asks_for_login(std::string_view line) {
  const auto fields = split(line, ':');
  if (fields.size() < 4 || (fields[2] != "respawn" && fields[2] != "askfirst" && fields[2] != "respawnlate"))
    return false;
  if (is_machine_terminal(fields[0])) return true;
  const auto words = split_blanks(fields[3]);
  const bool is_getty = !words.empty() && words[0].find("getty") != std::string_view::npos;
  return is_getty && std::any_of(words.begin(), words.end(), is_machine_terminal);
}

void edit_inittab(Guest& guest) {
  const auto text = guest.files.read("/etc/inittab");
  if (!text) return;
  std::string edited;
  std::size_t count = 0;
  bool has_console = false;
  for (const auto line : split(*text, '\n')) {
    const auto trimmed = trim(line);
    const bool is_comment = trimmed.empty() || trimmed.front() == '#';
    if (!is_comment && asks_for_login(trimmed)) edited += kOff, ++count;
    if (!is_comment && trimmed.find("respawn:") != std::string_view::npos &&
        trimmed.find("console") != std::string_view::npos)
      has_console = true;
    edited.append(line).append("\n");
  }
  if (count == 0) return;
  edited.pop_back();
  const bool is_busybox = guest.init() == InitSystem::kBusybox || guest.init() == InitSystem::kOpenRc;
  if (!has_console)
    edited += is_busybox ? "console::respawn:/sbin/getty 0 console linux\n"
                         : "co:2345:respawn:/sbin/getty --keep-baud console 115200,38400,9600 linux\n";
  if (guest.replace("/etc/inittab", edited))
    guest.add(Severity::kChange, "/etc/inittab",
              std::to_string(count) + " logins on terminals of the machine are off; one is on the console");
}

// True when something was switched off in `path`.
bool comment_out(Guest& guest, const std::string& path, bool (*is_meant)(std::string_view line)) {
  const auto text = guest.files.read(path);
  if (!text) return false;
  std::string edited;
  bool is_changed = false;
  for (const auto line : split(*text, '\n')) {
    if (is_meant(trim(line))) edited += kOff, is_changed = true;
    edited.append(line).append("\n");
  }
  return is_changed && guest.replace(path, edited.substr(0, edited.size() - 1));
}

bool loads_imklog(std::string_view line) {
  if (line.starts_with("$ModLoad")) return line.find("imklog") != std::string_view::npos;
  return line.starts_with("module(") && line.find("imklog") != std::string_view::npos;
}

}  // namespace

void apply_consoles(Guest& guest) {
  if (guest.init() != InitSystem::kSystemd) {
    edit_inittab(guest);
    return;
  }
  std::vector<std::string> gettys;
  for (const auto& unit : guest.enabled_units())
    if (unit.starts_with("serial-getty@") && unit.ends_with(".service")) gettys.push_back(unit);
  for (const auto& unit : gettys)
    if (guest.disable(unit))
      guest.add(Severity::kChange, "service " + quote(unit), "is masked: logins are on the container's console");
}

void apply_logs(Guest& guest) {
  auto paths = guest.list_paths("/etc/rsyslog.d", ".conf");
  paths.emplace_back("/etc/rsyslog.conf");
  for (const auto& path : paths)
    if (comment_out(guest, path, loads_imklog))
      guest.add(Severity::kChange, path, "rsyslog does not read the kernel's log: it is the host's");
  bool forwards = false;
  auto journald = guest.list_paths("/etc/systemd/journald.conf.d", ".conf");
  journald.emplace_back("/etc/systemd/journald.conf");
  for (const auto& path : journald)
    for (const auto& line : config_lines(guest.files.read_or_empty(path)))
      forwards |= line.starts_with("ForwardToKMsg=yes") || line.starts_with("TTYPath=") ||
                  line.starts_with("ForwardToConsole=yes");
  if (!forwards) return;
  constexpr const char* kDropIn = "/etc/systemd/journald.conf.d/zz-virtuserns-convert.conf";
  if (guest.replace(kDropIn, "[Journal]\nForwardToKMsg=no\nTTYPath=/dev/console\n"))
    guest.add(Severity::kChange, kDropIn, "the journal is forwarded to the container's console at most");
}

}  // namespace virtuserns::convert
