#include "tools/showinfo/verdict.h"

#include <cstring>

#include "conf/base/text.h"
#include "tools/showinfo/json.h"

namespace virtuserns::showinfo {

namespace {
constexpr const char* kWords[] = {"may", "may not", "cannot be said"};
}

std::string format_verdict(const Verdict& verdict) {
  const char* name = verdict.sys_errno != 0 ? ::strerrorname_np(verdict.sys_errno) : nullptr;
  std::string text = std::string(kWords[static_cast<int>(verdict.answer)]) + ": " +
                     printable(verdict.sentence, 4096) + " (" + verdict.rule +
                     (name ? std::string(", ") + name : "") + ")\n";
  for (const auto& fact : verdict.facts) text += "  " + printable(fact, 4096) + "\n";
  return text;
}

std::string format_verdict_json(const Verdict& verdict) {
  const char* name = verdict.sys_errno != 0 ? ::strerrorname_np(verdict.sys_errno) : nullptr;
  JsonList facts;
  for (const auto& fact : verdict.facts) facts.add(fact);
  return Json(JsonObject()
                  .set("schema", 1)
                  .set("answer", kWords[static_cast<int>(verdict.answer)])
                  .set("rule", verdict.rule)
                  .set("errno", name ? Json(name) : Json())
                  .set("sentence", verdict.sentence)
                  .set("facts", facts))
             .format() +
         "\n";
}

}  // namespace virtuserns::showinfo
