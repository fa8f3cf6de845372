// The verdict, for a person and for a script. The names and words of the JSON document are a promise:
// docs/manual/virt-userns-drill.1.
#pragma once

#include <cstdint>
#include <string>

#include "tools/drill/finding.h"

namespace virtuserns::drill {

struct Report {
  std::string subject;  // "domain 'web'" or "process 4711"
  std::string name, uuid, uri;
  std::int64_t process = 0;
  std::string kernel, time;
  Findings findings;
};

[[nodiscard]] bool has_failed(const Report& report);
[[nodiscard]] std::string format_text(const Report& report, bool is_verbose);
[[nodiscard]] std::string format_json(const Report& report);
// What to do about a wall that is missing.
[[nodiscard]] std::string remedy_of(const Finding& finding);

}  // namespace virtuserns::drill
