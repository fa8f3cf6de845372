// /etc/virtuserns/compute.conf: as virtusernsd.conf (key = value, strings in double quotes, # comments).
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/result.h"

namespace virtuserns::compute {

struct Settings {
  std::string connect = "userns:///system";  // any libvirt URI
  std::string socket = "/run/virtuserns/compute.sock";
  std::string socket_group;  // empty: root's alone
  std::string state = "/var/lib/virtuserns/compute";
  std::string daemon_config = "/etc/libvirt/virtusernsd.conf";  // how many ranges of ids there are
  std::string image_program;                                    // virt-userns-image; empty: found as programs are
  std::string console_address = "127.0.0.1";                    // where serial consoles listen
  std::string host;               // what other adapters call this one; empty: the machine's name
  std::string migration_address;  // where they reach it; empty: the machine's name
  // Fetches an instance from another host: {address}, {host}, {uuid} and {token} are filled in; what it prints is the instance.
  std::string migration_command = "ssh -o BatchMode=yes {address} virtuserns-compute send {uuid} {token}";
  std::string dumps = "/var/lib/virtuserns/compute/dumps";  // of instances; a folder of root's alone
  unsigned dumps_kept = 16;                                 // the newest; older ones are removed
  std::uint64_t default_disk_gb = 10;                       // of a flavor with a disk of 0
  std::uint64_t image_limit_gb = 64;   // of an image unpacked, where no flavor says how large it may be; 0: no limit
  unsigned image_reserve_percent = 5;  // of the file system of `state`, that unpacking leaves free
  unsigned patience_s = 15;            // how long to wait for the hypervisor's daemon
  bool root_volumes = false;           // whether a volume may be the root of a container
  unsigned soft_reboot_timeout_s = 60;
  unsigned quiesce_limit_s = 600;  // how long an instance stands still at most, when nobody thaws it
  unsigned log_level = 3;

  bool operator==(const Settings&) const = default;
};

// Every key is optional; an unknown key or a value of the wrong type is an error that names file, line and key.
[[nodiscard]] Result<Settings> parse_settings(const std::string& text, const std::string& file_name);
[[nodiscard]] Result<Settings> read_settings_file(const std::string& path);  // a missing file: the defaults

}  // namespace virtuserns::compute
