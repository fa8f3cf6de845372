// What one process may do to another: kill_ok_by_cred() and __ptrace_may_access() of the kernel.
#include <linux/capability.h>

#include <cerrno>

#include "conf/base/text.h"
#include "tools/showinfo/judge.h"

namespace virtuserns::showinfo {

namespace {

std::string name_of(const Subject& subject) {
  return "process " + std::to_string(subject.pid) + " " + quote(subject.who.name);
}

std::optional<Verdict> refuse_unseen(const SignalFacts& facts) {
  if (facts.is_in_sight == false)
    return may_not("pid-namespace", ESRCH,
                   name_of(facts.target) + " is not in its pid namespace or below: it has no number for it");
  return std::nullopt;
}

Verdict by_signal_rules(const Subject& subject, const Lineage& lineage, const SignalFacts& facts) {
  const auto& from = subject.who;
  const auto& to = facts.target.who;
  if (from.seccomp_mode == 1)
    return may_not("seccomp", EPERM, "it is in seccomp's strict mode and can signal nobody: it would be killed");
  if (auto refused = refuse_unseen(facts)) return *refused;
  if (from.thread_group == to.thread_group) return may("itself", "it may signal itself");
  for (const auto uid : {from.uid.effective, from.uid.real})
    if (uid == to.uid.real || uid == to.uid.saved)
      return may("uid", "its uid " + std::to_string(uid) + " is the real or saved uid of " + name_of(facts.target));
  const auto holding = has_capability(subject, lineage, facts.target.user_ns, CAP_KILL);
  if (holding.is_held) return may("capability", "it may signal processes of other users there: " + holding.why);
  return may_not("uid", EPERM,
                 "neither its real nor its effective uid (" + std::to_string(from.uid.effective) +
                     ") is the real or saved uid (" + std::to_string(to.uid.real) + ") of " + name_of(facts.target) +
                     "; " + holding.why);
}

bool has_same_ids(const kernel::Credentials& caller, const kernel::Credentials& target) {
  const auto is_all = [](std::uint32_t id, const kernel::IdSet& ids) {
    return id == ids.effective && id == ids.saved && id == ids.real;
  };
  return is_all(caller.uid.real, target.uid) && is_all(caller.gid.real, target.gid);
}

Verdict by_yama(const TraceFacts& facts, const Holding& trace) {
  const std::string setting = "kernel.yama.ptrace_scope is " + std::to_string(*facts.yama_scope);
  if (*facts.yama_scope >= 3) return may_not("yama", EPERM, setting + ": nobody traces anybody");
  if (*facts.yama_scope == 1 && facts.is_descendant)
    return may("uid",
               "they have the same ids, and the other is its descendant, as kernel.yama.ptrace_scope asks for");
  if (trace.is_held) return may("capability", "it may trace there: " + trace.why);
  return may_not("yama", EPERM,
                 setting +
                     (*facts.yama_scope == 1 ? " and the other is no descendant of it, unless that one named it "
                                               "as its tracer (PR_SET_PTRACER, which cannot be seen); "
                                             : "; ") +
                     trace.why);
}

Verdict by_trace_rules(const Subject& subject, const Lineage& lineage, const TraceFacts& facts) {
  const auto& target = facts.target.target;
  if (subject.who.seccomp_mode == 1)
    return may_not("seccomp", EPERM, "it is in seccomp's strict mode and can trace nobody: it would be killed");
  if (auto refused = refuse_unseen(facts.target)) return *refused;
  if (subject.who.thread_group == target.who.thread_group)
    return may_not("itself", EPERM, "nobody can attach to himself");
  if (!target.who.has_memory) return may_not("kernel", EPERM, name_of(target) + " is a thread of the kernel or dead");
  const auto trace = has_capability(subject, lineage, target.user_ns, CAP_SYS_PTRACE);
  const bool is_same = has_same_ids(subject.who, target.who);
  if (!is_same && !trace.is_held)
    return may_not("uid", EPERM,
                   "its real ids (" + std::to_string(subject.who.uid.real) + ":" +
                       std::to_string(subject.who.gid.real) + ") are not all of those of " + name_of(target) + "; " +
                       trace.why);
  if (facts.undumpable_in) {
    const std::string state = name_of(target) + " is not dumpable (it changed ids, or its program cannot be read)";
    if (*facts.undumpable_in == 0) return cannot_say("dumpable", state + " and where it was run is not visible");
    const auto memory = has_capability(subject, lineage, *facts.undumpable_in, CAP_SYS_PTRACE);
    if (!memory.is_held) return may_not("dumpable", EPERM, state + "; " + memory.why);
  }
  // cap_ptrace_access_check(): not whoever can do more than oneself.
  const bool has_no_more = subject.user_ns == target.user_ns && (target.who.permitted & ~subject.who.permitted) == 0;
  if (!has_no_more && !trace.is_held)
    return may_not("capability", EPERM,
                   name_of(target) + " has capabilities that it has not, or another user namespace; " + trace.why);
  if (facts.yama_scope.value_or(0) > 0) return by_yama(facts, trace);
  if (is_same && has_no_more && !facts.undumpable_in)
    return may("uid", "they have the same ids and user namespace, and the other has no more capabilities");
  return may("capability", "it may trace there: " + trace.why);
}

void add_facts(Verdict& verdict, const Subject& subject, const SignalFacts& facts) {
  verdict.facts = describe_subject(subject);
  for (auto& fact : describe_subject(facts.target)) verdict.facts.push_back("the other: " + fact);
}

}  // namespace

Verdict judge_signal(const Subject& subject, const Lineage& lineage, const SignalFacts& facts) {
  auto verdict = by_signal_rules(subject, lineage, facts);
  add_facts(verdict, subject, facts);
  if (!facts.is_in_sight)
    verdict.facts.emplace_back(
        "their pid namespaces are not visible: whether it has a number for the other is not known");
  if (facts.is_init_of_same)
    verdict.facts.emplace_back(
        "the other is init of its pid namespace: signals that it has no handler for, also KILL, do nothing");
  return verdict;
}

Verdict judge_trace(const Subject& subject, const Lineage& lineage, const TraceFacts& facts) {
  auto verdict = by_trace_rules(subject, lineage, facts);
  add_facts(verdict, subject, facts.target);
  verdict.facts.push_back(facts.yama_scope ? "kernel.yama.ptrace_scope is " + std::to_string(*facts.yama_scope)
                                           : std::string("the kernel has no Yama"));
  return verdict;
}

}  // namespace virtuserns::showinfo
