// What showinfo explain answers: the first rule of the kernel that decides, and what it was decided from.
#pragma once

#include <string>
#include <vector>

namespace virtuserns::showinfo {

enum class Answer { kMay, kMayNot, kUnknown };

struct Verdict {
  Answer answer = Answer::kUnknown;
  std::string rule;   // one word for scripts: "mode", "acl", "search", "capability", ...
  int sys_errno = 0;  // what the system call says, of kMayNot
  std::string sentence;
  std::vector<std::string> facts;
};

[[nodiscard]] inline Verdict may(std::string rule, std::string sentence) {
  return {Answer::kMay, std::move(rule), 0, std::move(sentence), {}};
}
[[nodiscard]] inline Verdict may_not(std::string rule, int sys_errno, std::string sentence) {
  return {Answer::kMayNot, std::move(rule), sys_errno, std::move(sentence), {}};
}
[[nodiscard]] inline Verdict cannot_say(std::string rule, std::string sentence) {
  return {Answer::kUnknown, std::move(rule), 0, std::move(sentence), {}};
}

[[nodiscard]] std::string format_verdict(const Verdict& verdict);
[[nodiscard]] std::string format_verdict_json(const Verdict& verdict);

}  // namespace virtuserns::showinfo
