// What a person asked for, of any subcommand.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tools/convert/job.h"
#include "tools/convert/map_domain.h"
#include "tools/convert/rules.h"
#include "tools/convert/source.h"

namespace virtuserns::convert {

inline constexpr std::uint32_t kUsualIds = 65536;  // what the daemon leases by itself

// Of a machine that is taken over while it runs.
struct LiveSettings {
  bool is_wanted = false;
  std::string folder;           // of the overlays it goes on with; empty: that of each disk
  std::uint32_t limit_s = 120;  // to shut down
  bool is_destroyed = false;    // where it does not
  std::uint16_t port = 0;       // waited for at the end; 0: none
  bool operator==(const LiveSettings&) const = default;
};

struct Settings {
  SourceOptions source;
  std::string uri = "userns:///system";  // where the container is defined
  std::string folder = "/var/lib/virtuserns/convert";
  std::string name;  // of the container; empty: the VM's
  std::string root;  // the volume that is "/"; empty: it is found
  Mode mode = Mode::kInPlace;
  std::uint64_t image_bytes = 0;  // of Mode::kImage
  std::uint32_t id_count = kUsualIds;
  LiveSettings live;
  bool is_clone = false;   // the VM goes on to exist beside the container
  bool is_forced = false;  // also with findings that say it will not work
  bool is_started = false;
  std::function<void(const std::string&)> say = [](const std::string&) {};  // progress, a line each
};

}  // namespace virtuserns::convert
