// Where things are. Every root can be replaced (tests, session mode).
#pragma once

#include <string>

namespace virtuserns {

struct Paths {
  std::string run = "/run/libvirt";  // sockets: <run>/virtusernsd-sock, -sock-ro; pid file
  // Status, controller sockets, exit records; gone at reboot. Of a session below `state`: what runs may outlive a logout, at
  // which $XDG_RUNTIME_DIR goes.
  std::string driver_run = "/run/libvirt/userns";
  std::string definitions = "/etc/libvirt/userns";  // <uuid>.xml, autostart/<uuid>.xml -> ../<uuid>.xml
  std::string state = "/var/lib/libvirt/userns";    // leases
  std::string log = "/var/log/libvirt/userns";      // <name>.log, one per domain
  std::string config_file = "/etc/libvirt/virtusernsd.conf";
  std::string module_dir;  // driver modules (*.so); default from the build
  std::string controller;  // path of virtuserns-controller; default from the build
  std::string subuid = "/etc/subuid", subgid = "/etc/subgid", passwd = "/etc/passwd", group = "/etc/group";
  std::string proc = "/proc", sys = "/sys", cgroup = "/sys/fs/cgroup";
  std::string link_broker = "/run/libvirt/virtusernsd-link-sock";  // the system's, also for sessions
  std::string user_systemd;  // of a session: where the user's own systemd listens; empty: there is none
  bool is_session = false;
};

// The fixed paths above, with the build's module directory and controller.
[[nodiscard]] Paths system_paths();
// Of a session: holds a driver_run for each boot of the machine.
[[nodiscard]] std::string session_boots(const Paths& paths);
// $XDG_RUNTIME_DIR, $XDG_CONFIG_HOME, $XDG_STATE_HOME of the calling user (XDG base directory specification).
[[nodiscard]] Paths session_paths();

}  // namespace virtuserns
