#include "tools/convert/findings.h"

#include <algorithm>

namespace virtuserns::convert {

const char* word_of(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kChange:
      return "change";
    case Severity::kLoss:
      return "loss";
    case Severity::kBlock:
      return "block";
  }
  return "block";
}

Severity worst(std::span<const Finding> findings) {
  Severity worst = Severity::kNote;
  for (const auto& finding : findings) worst = std::max(worst, finding.severity);
  return worst;
}

int exit_code(std::span<const Report> reports) {
  int code = 0;
  for (const auto& report : reports) {
    const auto severity = worst(report.findings);
    code = std::max(code, severity == Severity::kBlock ? 3 : severity == Severity::kLoss ? 2 : 0);
  }
  return code;
}

}  // namespace virtuserns::convert
