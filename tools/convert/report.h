// Reports for a person (80 columns) and for a script (JSON). Nothing that comes from a guest reaches a terminal raw.
#pragma once

#include <span>
#include <string>

#include "tools/convert/findings.h"

namespace virtuserns::convert {

// Worst first, wrapped at `columns`.
[[nodiscard]] std::string format_report(const Report& report, std::size_t columns = 80);
// One line for each machine: name, verdict, how many of each severity.
[[nodiscard]] std::string format_reports_table(std::span<const Report> reports);
// [{"domain": ..., "verdict": ..., "findings": [{"severity", "object", "text", "remedy", "rule"}]}], and of a machine that ran
// "downtime": {"machine_off_ms", "init_runs_ms", "port", "port_answers_ms"}; the last is null where none answered in time.
[[nodiscard]] std::string format_reports_json(std::span<const Report> reports);

}  // namespace virtuserns::convert
