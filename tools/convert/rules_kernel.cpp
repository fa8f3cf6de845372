// What the guest asks of its kernel, which will be the host's: modules, their options, sysctl.
#include <algorithm>
#include <array>
#include <set>

#include "conf/base/text.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

constexpr std::size_t kMaxNamed = 12;

std::string list_some(const std::set<std::string>& names) {
  std::string text;
  std::size_t count = 0;
  for (const auto& name : names) {
    if (++count > kMaxNamed) return text + " and " + std::to_string(names.size() - kMaxNamed) + " more";
    text += (text.empty() ? "" : ", ") + printable(name);
  }
  return text;
}

// Below /proc/sys/net/ipv4, yet of the whole machine.
constexpr std::array kHostOnlyIp = {"net.ipv4.tcp_mem",
                                    "net.ipv4.udp_mem",
                                    "net.ipv4.tcp_max_orphans",
                                    "net.ipv4.inet_peer_",
                                    "net.ipv4.tcp_allowed_congestion_control",
                                    "net.ipv4.tcp_low_latency",
                                    "net.ipv4.route.max_size",
                                    "net.ipv4.route.gc_",
                                    "net.ipv4.ipfrag_secret",
                                    "net.ipv6.xfrm6_gc_thresh"};
// The container has its own of these, at the kernel's defaults, and cannot write them.
constexpr std::array kOwnDefaults = {"kernel.shm",         "kernel.msg",        "kernel.sem",
                                     "kernel.hostname",    "kernel.domainname", "fs.mqueue.",
                                     "net.core.somaxconn", "net.unix.",         "user.max_"};

enum class Scope { kSettable, kOwnDefault, kHost };

Scope scope_of(const std::string& key) {
  const auto begins = [&](const char* prefix) { return key.starts_with(prefix); };
  if (std::any_of(kHostOnlyIp.begin(), kHostOnlyIp.end(), begins)) return Scope::kHost;
  if (begins("net.ipv4.") || begins("net.ipv6.")) return Scope::kSettable;
  return std::any_of(kOwnDefaults.begin(), kOwnDefaults.end(), begins) ? Scope::kOwnDefault : Scope::kHost;
}

// "net/ipv4/ip_forward" is "net.ipv4.ip_forward"; a leading '-' only says that errors are no matter.
std::string sysctl_key(std::string_view line) {
  std::string key(trim(line.substr(0, line.find('='))));
  if (key.starts_with("-")) key.erase(0, 1);
  const auto first = key.find_first_of("./");
  if (first != std::string::npos && key[first] == '/')
    for (auto& c : key) c = c == '/' ? '.' : c == '.' ? '/' : c;
  return key;
}

}  // namespace

void apply_modules(Guest& guest) {
  std::set<std::string> modules;
  const auto read = [&](const std::string& path) {
    for (const auto& line : config_lines(guest.files.read_or_empty(path)))
      modules.emplace(split_blanks(line).front());
  };
  read("/etc/modules");
  for (const auto& path : guest.list_paths("/etc/modules-load.d", ".conf")) read(path);
  if (!modules.empty())
    guest.add(Severity::kLoss, "modules",
              "the guest loads kernel modules, and cannot any more: " + list_some(modules),
              "load those that are needed on the host: /etc/modules-load.d/");
  std::set<std::string> options;
  for (const auto& path : guest.list_paths("/etc/modprobe.d", ".conf"))
    for (const auto& line : config_lines(guest.files.read_or_empty(path)))
      if (const auto words = split_blanks(line); words.size() > 1 && words[0] == "options") options.emplace(words[1]);
  if (!options.empty())
    guest.add(Severity::kNote, "/etc/modprobe.d", "options of kernel modules have no effect: " + list_some(options));
  std::set<std::string> dkms;
  for (const auto& name : guest.files.list("/var/lib/dkms"))
    if (guest.files.type("/var/lib/dkms/" + name) == GuestType::kDirectory) dkms.insert(name);
  if (!dkms.empty())
    guest.add(Severity::kLoss, "/var/lib/dkms",
              "modules that the guest builds are not those of the host: " + list_some(dkms),
              "install them on the host if a service needs them");
}

void apply_sysctl(Guest& guest) {
  std::set<std::string> settable, own, host;
  auto paths = guest.list_paths("/etc/sysctl.d", ".conf");
  paths.emplace_back("/etc/sysctl.conf");
  for (const auto& path : paths) {
    for (const auto& line : config_lines(guest.files.read_or_empty(path))) {
      if (line.find('=') == std::string::npos) continue;
      const auto key = sysctl_key(line);
      const auto scope = scope_of(key);
      (scope == Scope::kSettable ? settable : scope == Scope::kHost ? host : own).insert(key);
    }
  }
  if (!host.empty())
    guest.add(Severity::kLoss, "sysctl", "settings of the whole machine have no effect: " + list_some(host),
              "set those that are needed on the host");
  if (!own.empty())
    guest.add(Severity::kLoss, "sysctl", "settings stay at the kernel's defaults in a container: " + list_some(own));
  if (settable.empty() || guest.init() != InitSystem::kSystemd) return;
  // The unit is skipped where /proc/sys/net is read-only as a whole, as it is in a container.
  constexpr const char* kDropIn = "/etc/systemd/system/systemd-sysctl.service.d/virtuserns-convert.conf";
  if (guest.replace(kDropIn, "[Unit]\nConditionPathIsReadWrite=\nConditionPathIsReadWrite=/proc/sys/net/ipv4\n"))
    guest.add(Severity::kChange, kDropIn, "settings of IP are applied at boot: " + list_some(settable));
}

}  // namespace virtuserns::convert
