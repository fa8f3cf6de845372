// What one check of the drill found, from inside or from outside.
#pragma once

#include <string>
#include <vector>

namespace virtuserns::drill {

enum class Outcome { kHeld, kFailed, kNotApplicable, kNotRun };
// As the probes and the JSON document write them.
[[nodiscard]] const char* word_of(Outcome outcome);

struct Finding {
  char group = 'A';  // the class of docs/security.md, A to F
  std::string name;
  bool is_outside = false;
  Outcome outcome = Outcome::kHeld;
  std::string detail;
};
using Findings = std::vector<Finding>;

// "CLASS NAME WORD DETAIL", which is how the probes write and how processes of the drill tell one another. False when
// `line` is none: what comes from a container may be anything.
[[nodiscard]] bool read_finding(const std::string& line, Finding& finding);
[[nodiscard]] std::string write_finding(const Finding& finding);

}  // namespace virtuserns::drill
