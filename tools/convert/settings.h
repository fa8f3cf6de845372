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

struct Settings {
  SourceOptions source;
  std::string uri = "userns:///system";  // where the container is defined
  std::string folder = "/var/lib/virtuserns/convert";
  std::string name;  // of the container; empty: the VM's
  std::string root;  // the volume that is "/"; empty: it is found
  Mode mode = Mode::kInPlace;
  std::uint64_t image_bytes = 0;  // of Mode::kImage
  std::uint32_t id_count = kUsualIds;
  bool is_clone = false;   // the VM goes on to exist beside the container
  bool is_forced = false;  // also with findings that say it will not work
  bool is_started = false;
  std::function<void(const std::string&)> say = [](const std::string&) {};  // progress, a line each
};

}  // namespace virtuserns::convert
