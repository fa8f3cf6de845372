// showinfo explain: an action and its object, to facts and a verdict.
#pragma once

#include <string>

#include "conf/base/result.h"
#include "tools/showinfo/host.h"
#include "tools/showinfo/verdict.h"

namespace virtuserns::showinfo {

struct Question {
  std::string subject;  // a process or a domain
  std::string action;   // open, exec, device, signal, trace, mount, bind
  std::string object;
  std::string access;  // of open and device: r, w or rw
};

// VIR_ERR_INVALID_ARG for what is no question.
[[nodiscard]] Result<Verdict> explain(const Host& host, const Question& question);

}  // namespace virtuserns::showinfo
