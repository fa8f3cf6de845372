#include "tools/showinfo/explain.h"

#include <sys/stat.h>

#include "conf/base/text.h"
#include "tools/showinfo/look.h"

namespace virtuserns::showinfo {

namespace {

Result<unsigned> parse_access(const std::string& access) {
  if (access == "r") return kRead;
  if (access == "w") return kWrite;
  if (access == "rw") return kRead | kWrite;
  return fail(VIR_ERR_INVALID_ARG, "access " + quote(access) + " is none of 'r', 'w' and 'rw'");
}

Result<Verdict> explain_file(const Host& host, const Subject& subject, const Process& process,
                             const Question& question) {
  const bool is_exec = question.action == "exec";
  const unsigned wanted = is_exec ? kExecute : TRY(parse_access(question.access));
  const auto facts = TRY(look_at_path(process, host.own, question.object, wanted));
  if (question.action == "device" && facts.target && !S_ISCHR(facts.target->mode) && !S_ISBLK(facts.target->mode))
    return fail(VIR_ERR_INVALID_ARG, quote(question.object) + " is no device; ask whether it may be opened");
  return judge_open(subject, facts, wanted);
}

}  // namespace

Result<Verdict> explain(const Host& host, const Question& question) {
  const auto* process = TRY(find_subject(host, question.subject));
  const Subject subject = TRY(read_subject(host, *process));
  const auto& action = question.action;
  if (action == "open" || action == "exec" || action == "device")
    return explain_file(host, subject, *process, question);
  if (action == "signal" || action == "trace") {
    const auto* target = TRY(find_subject(host, question.object));
    if (action == "signal")
      return judge_signal(subject, host.namespaces, TRY(look_at_target(host, *process, *target)));
    return judge_trace(subject, host.namespaces, TRY(look_at_tracee(host, *process, *target)));
  }
  if (action == "mount")
    return judge_mount(subject, host.namespaces, TRY(look_at_mounting(host, *process, question.object)));
  if (action == "bind") {
    const auto port = parse_number<std::uint16_t>(question.object);
    if (!port) return fail(VIR_ERR_INVALID_ARG, quote(question.object) + " is no port; give a number up to 65535");
    return judge_bind(subject, host.namespaces, TRY(look_at_binding(*process, *port)));
  }
  return fail(VIR_ERR_INVALID_ARG, quote(action) +
                                       " is nothing that can be explained; known are open, exec, device, signal, "
                                       "trace, mount and bind");
}

}  // namespace virtuserns::showinfo
