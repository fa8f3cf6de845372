#include "tools/convert/report.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "conf/base/text.h"

namespace virtuserns::convert {

namespace {

constexpr std::size_t kMaxCellBytes = 2048;  // of one text of a finding, printed
constexpr std::size_t kIndent = 8;           // "change" and two blanks

constexpr std::array kWorstFirst = {Severity::kBlock, Severity::kLoss, Severity::kChange, Severity::kNote};

std::string clean(const std::string& text) { return printable(text, kMaxCellBytes); }

std::size_t count_of(const Report& report, Severity severity) {
  return static_cast<std::size_t>(std::count_if(report.findings.begin(), report.findings.end(),
                                                [&](const Finding& f) { return f.severity == severity; }));
}

std::string verdict_of(const Report& report) {
  switch (worst(report.findings)) {
    case Severity::kBlock:
      return "blocked";
    case Severity::kLoss:
      return "with losses";
    case Severity::kChange:
    case Severity::kNote:
      break;
  }
  return report.done;
}

// Length in characters of a terminal: continuation bytes of UTF-8 take no column.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// The first `columns` characters of `text`, in bytes.
std::size_t bytes_of(std::string_view text, std::size_t columns) {
  std::size_t bytes = 0;
  for (; bytes < text.size(); ++bytes) {
    const bool is_start = (static_cast<unsigned char>(text[bytes]) & 0xc0) != 0x80;
    if (is_start && columns-- == 0) break;
  }
  return bytes;
}

// Appends `text` to `out` in lines of at most `columns`, each after the first indented; `column` is where the first
// begins. A word that fits no line is cut.
void wrap(std::string& out, std::string_view text, std::size_t column, std::size_t columns, std::size_t indent) {
  bool is_line_start = true;
  for (auto word : split_blanks(text)) {
    if (!is_line_start && column + 1 + width_of(word) > columns) {
      out.append("\n").append(indent, ' ');
      column = indent, is_line_start = true;
    }
    if (!is_line_start) out += ' ', ++column;
    while (column + width_of(word) > columns) {
      const auto head = bytes_of(word, columns > column ? columns - column : 1);
      out.append(word.substr(0, head)).append("\n").append(indent, ' ');
      word.remove_prefix(head);
      column = indent;
    }
    out += word;
    column += width_of(word), is_line_start = false;
  }
  out += '\n';
}

std::string counts_of(const Report& report) {
  std::string text;
  for (const auto severity : kWorstFirst) {
    const auto count = count_of(report, severity);
    if (count == 0) continue;
    const bool is_plural = count != 1;
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + word_of(severity) +
            (is_plural ? (severity == Severity::kLoss ? "es" : "s") : "");
  }
  return text.empty() ? "nothing to say" : text;
}

std::string describe(const Downtime& downtime) {
  std::string text = "downtime: the machine was off after " + std::to_string(downtime.machine_off_ms) +
                     " ms, init of the container ran after " + std::to_string(downtime.init_runs_ms) + " ms";
  if (downtime.port == 0) return text;
  text += ", port " + std::to_string(downtime.port);
  return downtime.port_answers_ms ? text + " answered after " + std::to_string(*downtime.port_answers_ms) + " ms"
                                  : text + " has not answered";
}

nlohmann::ordered_json to_json(const Downtime& downtime) {
  nlohmann::ordered_json json = {{"machine_off_ms", downtime.machine_off_ms},
                                 {"init_runs_ms", downtime.init_runs_ms}};
  if (downtime.port == 0) return json;
  json["port"] = downtime.port;
  json["port_answers_ms"] = nullptr;
  if (downtime.port_answers_ms) json["port_answers_ms"] = *downtime.port_answers_ms;
  return json;
}

}  // namespace

std::string format_report(const Report& report, std::size_t columns) {
  columns = std::max<std::size_t>(columns, 40);
  std::string out;
  wrap(out, clean(report.domain) + ": " + verdict_of(report) + " (" + counts_of(report) + ")", 0, columns, kIndent);
  if (report.downtime) wrap(out, describe(*report.downtime), 0, columns, kIndent);
  for (const auto severity : kWorstFirst) {
    for (const auto& finding : report.findings) {
      if (finding.severity != severity) continue;
      std::string word = word_of(severity);
      word.resize(kIndent, ' ');
      out += word;
      wrap(out, clean(finding.object) + ": " + clean(finding.text), kIndent, columns, kIndent);
      if (finding.remedy.empty()) continue;
      out.append(kIndent, ' ').append("-> ");
      wrap(out, clean(finding.remedy), kIndent + 3, columns, kIndent + 3);
    }
  }
  return out;
}

std::string format_reports_table(std::span<const Report> reports) {
  constexpr std::size_t kMaxNameColumns = 38;  // with the other columns 80
  std::size_t name_columns = width_of("MACHINE");
  std::vector<std::string> names;
  for (const auto& report : reports) {
    auto name = clean(report.domain);
    if (width_of(name) > kMaxNameColumns) name = name.substr(0, bytes_of(name, kMaxNameColumns - 3)) + "...";
    name_columns = std::max(name_columns, width_of(name));
    names.push_back(std::move(name));
  }
  const auto pad = [](std::string text, std::size_t columns) {
    if (width_of(text) < columns) text.append(columns - width_of(text), ' ');
    return text;
  };
  const auto number = [](std::size_t count) {
    const auto text = std::to_string(count);
    return std::string(text.size() < 8 ? 8 - text.size() : 1, ' ') + text;
  };
  std::string out = pad("MACHINE", name_columns) + " VERDICT       BLOCKS  LOSSES CHANGES\n";
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const auto& report = reports[i];
    out += pad(names[i], name_columns) + " " + pad(verdict_of(report), 12) +
           number(count_of(report, Severity::kBlock)) + number(count_of(report, Severity::kLoss)) +
           number(count_of(report, Severity::kChange)) + "\n";
  }
  return out;
}

std::string format_reports_json(std::span<const Report> reports) {
  auto list = nlohmann::ordered_json::array();
  for (const auto& report : reports) {
    auto findings = nlohmann::ordered_json::array();
    for (const auto severity : kWorstFirst)
      for (const auto& f : report.findings)
        if (f.severity == severity)
          findings.push_back({{"severity", word_of(f.severity)},
                              {"object", clean(f.object)},
                              {"text", clean(f.text)},
                              {"remedy", clean(f.remedy)},
                              {"rule", clean(f.rule)}});
    list.push_back({{"domain", clean(report.domain)}, {"verdict", verdict_of(report)}, {"findings", findings}});
    if (report.downtime) list.back()["downtime"] = to_json(*report.downtime);
  }
  return list.dump(2) + "\n";
}

}  // namespace virtuserns::convert
