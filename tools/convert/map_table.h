// Every element of a machine's XML and what becomes of it: for map_domain.cpp and its test.
#pragma once

#include <string>
#include <string_view>

#include "tools/convert/findings.h"

namespace virtuserns::convert {

enum class Fate {
  kMapped,  // becomes part of the container's definition, or is looked at by code; its children have fates of their own
  kDropped,  // with everything below it, and a finding
  kRefused,  // with everything below it, and a finding kBlock
};

struct ElementRow {
  const char* path;  // "devices/interface/mac", below <domain>; "*" for any name
  Fate fate;
  Severity severity;
  const char* text;  // of the finding; empty where there is none
  const char* remedy;
  bool is_whole = false;  // kMapped with everything below it
};

// nullptr: no libvirt that we know has such an element.
[[nodiscard]] const ElementRow* find_row(std::string_view path);

}  // namespace virtuserns::convert
