#include "conf/paths.h"

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "virtuserns_build.h"

namespace virtuserns {
namespace {

std::string home_directory() {
  if (const char* home = std::getenv("HOME"); home != nullptr && home[0] == '/') return home;
  std::array<char, 4096> buffer;
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr)
    return found->pw_dir;
  return "/";
}

// An XDG variable counts only when it is an absolute path.
std::string xdg(const char* variable, const std::string& fallback) {
  const char* value = std::getenv(variable);
  return value != nullptr && value[0] == '/' ? value : fallback;
}

}  // namespace

Paths system_paths() {
  Paths paths;
  paths.module_dir = VIRTUSERNS_MODULE_DIR;
  paths.controller = std::string(VIRTUSERNS_LIBEXEC_DIR) + "/virtuserns-controller";
  return paths;
}

std::string session_boots(const Paths& paths) { return paths.state + "/boots"; }

Paths session_paths() {
  Paths paths = system_paths();
  const std::string home = home_directory();
  const std::string config = xdg("XDG_CONFIG_HOME", home + "/.config") + "/libvirt";
  const std::string state = xdg("XDG_STATE_HOME", home + "/.local/state") + "/libvirt";
  const std::string cache = xdg("XDG_CACHE_HOME", home + "/.cache") + "/libvirt";
  // Where libvirt's client looks: the runtime directory, else the cache directory.
  const std::string runtime = xdg("XDG_RUNTIME_DIR", "");
  paths.run = runtime.empty() ? cache : runtime + "/libvirt";
  if (!runtime.empty()) paths.user_systemd = runtime + "/systemd/private";
  paths.definitions = config + "/userns";
  paths.state = state + "/userns";
  const auto boot = read_kernel_file(paths.proc + "/sys/kernel/random/boot_id", 64);
  paths.driver_run = session_boots(paths) + "/" + (boot ? std::string(trim(*boot)) : "unknown");
  paths.log = cache + "/userns/log";
  paths.config_file = config + "/virtusernsd.conf";
  paths.is_session = true;
  return paths;
}

}  // namespace virtuserns
