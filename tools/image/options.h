// What a person, or the adapter, asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/convert/findings.h"
#include "tools/image/bounds.h"

namespace virtuserns::image {

struct UnpackOptions {
  std::string format;  // empty: by the content
  std::string root;    // the volume that is "/"; empty: it is found
  Limits limits;
  unsigned reserve_percent = 5;  // of the file system, that is left free
  bool is_fitted = false;
  bool is_whole = false;  // a disk as it is, and none of its files
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

struct PackOptions {
  std::vector<std::string> lowers;  // the uppermost first
  bool is_raw = false;
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

// Of either way.
struct Report {
  std::string format, root;  // "qcow2", "vda1"; "": of an archive
  std::uint64_t entries = 0, bytes = 0;
  std::vector<std::string> targets;        // of a disk: where its file systems are mounted, "/" first
  std::vector<convert::Finding> findings;  // what was left out or changed
};

}  // namespace virtuserns::image
