#include "tools/drill/finding.h"

#include <algorithm>
#include <string_view>

#include "conf/base/text.h"

namespace virtuserns::drill {

namespace {

constexpr const char* kWords[] = {"held", "failed", "not-applicable", "not-run"};

bool is_name(std::string_view text) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), is_letter);
}

}  // namespace

const char* word_of(Outcome outcome) { return kWords[static_cast<int>(outcome)]; }

bool read_finding(const std::string& line, Finding& finding) {
  const auto words = split(line, ' ');
  if (words.size() < 3 || words[0].size() != 1 || words[0][0] < 'A' || words[0][0] > 'F' || !is_name(words[1]))
    return false;
  for (int i = 0; i < 4; ++i) {
    if (words[2] != kWords[i]) continue;
    const std::size_t head = words[0].size() + words[1].size() + words[2].size() + 3;
    finding = {words[0][0], std::string(words[1]), false, static_cast<Outcome>(i),
               printable(line.size() > head ? std::string_view(line).substr(head) : std::string_view(), 400)};
    return true;
  }
  return false;
}

std::string write_finding(const Finding& finding) {
  return std::string(1, finding.group) + " " + finding.name + " " + word_of(finding.outcome) + " " +
         printable(finding.detail, 400) + "\n";
}

}  // namespace virtuserns::drill
