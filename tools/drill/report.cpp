#include "tools/drill/report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <string_view>

#include "conf/base/text.h"
#include "virtuserns_build.h"

namespace virtuserns::drill {

namespace {

constexpr std::pair<char, const char*> kClasses[] = {
    {'A', "files, directories, programs, environment, keys of the host"},
    {'B', "masks, mounts, ways out of the root"},
    {'C', "ids, groups, capabilities"},
    {'D', "kernel interfaces, control groups, devices"},
    {'E', "network and IPC"},
    {'F', "terminals"}};

// What a definition can open, by the beginning of a check's name; the longest one counts.
constexpr std::pair<const char*, const char*> kRemedies[] = {
    {"call",
     "the definition allows this system call: remove its <userns:allow>, or nesting='yes', from <userns:seccomp>"},
    {"unshare", "remove nesting='yes' from <userns:seccomp>, unless the domain runs containers of its own"},
    {"clone", "remove nesting='yes' from <userns:seccomp>, unless the domain runs containers of its own"},
    {"capability_", "remove this capability's state='on' from <features><capabilities>"},
    {"outside_capabilities", "remove the state='on' of what is named from <features><capabilities>"},
    {"nodes_in_dev", "a <hostdev> or <disk> gives the domain this device: remove it, unless that is meant"},
    {"virtual_terminals", "a <hostdev> gives the domain this device: remove it, unless that is meant"},
    {"serial_lines", "a <hostdev> gives the domain this device: remove it, unless that is meant"},
    {"links", "a <hostdev> or <interface> gives the domain this link: remove it, unless that is meant"},
    {"environment", "remove this variable from the <initenv> of the definition"},
    {"outside_environment", "remove this variable from the <initenv> of the definition"},
    {"descriptors", "whoever started the domain passed it this file: start it without"},
    {"outside_descriptors", "whoever started the domain passed it this file: start it without"},
    {"masked_", "is a <filesystem> of the definition mounted over /proc or /sys? Remove it"},
    {"host_mounts", "is a <filesystem> of the definition one of the kernel's? Remove it"},
    {"outside_process_limit",
     "the host's control groups limit no processes: enable the pids controller and restart the domain"},
    {"outside_memory_limit",
     "the host's control groups limit no memory: enable the memory controller and restart the domain"},
};
constexpr const char* kDefect =
    "nothing in a definition opens this wall: treat the domain as broken out of, and report it (docs/security.md)";

struct Counts {
  int held = 0, failed = 0, not_applicable = 0, not_run = 0;
  void add(Outcome outcome) {
    int* all[] = {&held, &failed, &not_applicable, &not_run};
    ++*all[static_cast<int>(outcome)];
  }
};

Counts count(const Findings& findings, char group = 0) {
  Counts counts;
  for (const auto& finding : findings)
    if (group == 0 || finding.group == group) counts.add(finding.outcome);
  return counts;
}

std::string sentence(const Report& report) {
  const auto all = count(report.findings);
  std::string text = report.subject + ": ";
  if (all.failed == 0)
    text += "ISOLATED. All " + std::to_string(all.held) + " walls that could be tried hold";
  else
    text += "NOT ISOLATED. " + std::to_string(all.failed) + " of " + std::to_string(all.failed + all.held) +
            " walls are missing";
  text += "; " + std::to_string(all.not_applicable) + " do not apply to this machine";
  if (all.not_run > 0) text += "; " + std::to_string(all.not_run) + " were left out (--all tries them)";
  return text + ".";
}

std::string json_counts(const Counts& counts) {
  return "\"held\": " + std::to_string(counts.held) + ", \"failed\": " + std::to_string(counts.failed) +
         ", \"not_applicable\": " + std::to_string(counts.not_applicable) +
         ", \"not_run\": " + std::to_string(counts.not_run);
}

}  // namespace

bool has_failed(const Report& report) { return count(report.findings).failed > 0; }

std::string remedy_of(const Finding& finding) {
  const char* found = kDefect;
  std::size_t longest = 0;
  for (const auto& [prefix, remedy] : kRemedies)
    if (finding.name.starts_with(prefix) && std::string_view(prefix).size() > longest) {
      found = remedy;
      longest = std::string_view(prefix).size();
    }
  return found;
}

std::string format_text(const Report& report, bool is_verbose) {
  std::string text = sentence(report) + "\n\n";
  char line[256];
  std::snprintf(line, sizeof line, "  %-64s %6s %7s %15s\n", "class", "held", "FAILED", "does not apply");
  text += line;
  for (const auto& [group, title] : kClasses) {
    const auto counts = count(report.findings, group);
    std::snprintf(line, sizeof line, "  %c %-62s %6d %7d %15d\n", group, title, counts.held, counts.failed,
                  counts.not_applicable + counts.not_run);
    text += line;
  }
  for (const auto& finding : report.findings)
    if (finding.outcome == Outcome::kFailed)
      text += "\n  FAILED " + finding.name + " (" + finding.group + "): " + finding.detail + "\n    " +
              remedy_of(finding) + "\n";
  if (is_verbose) {
    text += "\n";
    for (const auto& finding : report.findings) text += "  " + write_finding(finding);
  }
  return text;
}

std::string format_json(const Report& report) {
  std::string text = "{\n  \"schema\": 1,\n  \"program\": \"virt-userns-drill " VIRTUSERNS_VERSION "\",\n";
  if (!report.name.empty())
    text += "  \"domain\": {\"name\": " + quote_json(report.name) + ", \"uuid\": " + quote_json(report.uuid) +
            ", \"uri\": " + quote_json(report.uri) + "},\n";
  text += "  \"process\": " + std::to_string(report.process) + ",\n  \"time\": " + quote_json(report.time) +
          ",\n  \"kernel\": " + quote_json(report.kernel) +
          ",\n  \"verdict\": " + (has_failed(report) ? "\"failed\"" : "\"held\"") +
          ",\n  \"summary\": " + quote_json(sentence(report)) + ",\n  \"counts\": {" +
          json_counts(count(report.findings)) + "},\n  \"classes\": [";
  const char* separator = "\n";
  for (const auto& [group, title] : kClasses) {
    text += std::string(separator) + "    {\"class\": \"" + group + "\", \"title\": " + quote_json(title) + ", " +
            json_counts(count(report.findings, group)) + "}";
    separator = ",\n";
  }
  text += "\n  ],\n  \"checks\": [";
  separator = "\n";
  for (const auto& finding : report.findings) {
    text += std::string(separator) + "    {\"class\": \"" + finding.group +
            "\", \"name\": " + quote_json(finding.name) +
            ", \"seen_from\": " + (finding.is_outside ? "\"outside\"" : "\"inside\"") +
            ", \"outcome\": " + quote_json(word_of(finding.outcome)) + ", \"detail\": " + quote_json(finding.detail);
    if (finding.outcome == Outcome::kFailed) text += ", \"remedy\": " + quote_json(remedy_of(finding));
    text += "}";
    separator = ",\n";
  }
  return text + "\n  ]\n}\n";
}

}  // namespace virtuserns::drill
