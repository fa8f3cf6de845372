#include "tools/showinfo/subject.h"

#include <algorithm>

#include "conf/base/text.h"
#include "conf/capability_names.h"
#include "conf/privileges.h"

namespace virtuserns::showinfo {

namespace {

bool is_effective(const Subject& subject, int capability) {
  return (subject.who.effective & capability_bit(capability)) != 0;
}

std::string list_capabilities(const Subject& subject) {
  std::vector<std::string> held, missing;
  for (int i = 0; i < static_cast<int>(kCapabilitiesByNumber.size()); ++i)
    (is_effective(subject, i) ? held : missing).push_back(std::string(kCapabilitiesByNumber[i]));
  if (missing.empty()) return "all";
  if (held.empty()) return "none";
  return held.size() > missing.size() ? "all but " + join(missing, " ") : join(held, " ");
}

std::string show(const kernel::IdSet& ids) {
  std::string text = std::to_string(ids.effective);
  if (ids.real != ids.effective) text += ", real " + std::to_string(ids.real);
  if (ids.saved != ids.effective) text += ", saved " + std::to_string(ids.saved);
  if (ids.filesystem != ids.effective) text += ", of file systems " + std::to_string(ids.filesystem);
  return text;
}

}  // namespace

std::string capability_name(int capability) {
  return capability >= 0 && static_cast<std::size_t>(capability) < kCapabilitiesByNumber.size()
             ? std::string(kCapabilitiesByNumber[capability])
             : std::to_string(capability);
}

Holding has_capability(const Subject& subject, const Lineage& lineage, NamespaceId target, int capability) {
  const std::string name = capability_name(capability);
  for (NamespaceId at = target;;) {
    if (at == subject.user_ns) {
      const bool is_held = is_effective(subject, capability);
      return {is_held, "capability " + name + (is_held ? " is" : " is not") + " in its effective set"};
    }
    const auto found = lineage.find(at);
    if (found == lineage.end() || !found->second.parent)
      return {false, "user namespace " + std::to_string(target) + " is neither its own (" +
                         std::to_string(subject.user_ns) +
                         ") nor below it, so that its capabilities do not reach it"};
    if (*found->second.parent == subject.user_ns && found->second.owner == subject.who.uid.effective)
      return {true, "its uid made user namespace " + std::to_string(at) + " and so has every capability in it"};
    at = *found->second.parent;
  }
}

Holding has_capability_over(const Subject& subject, std::uint32_t uid, std::uint32_t gid, int capability) {
  if (!is_effective(subject, capability))
    return {false, "capability " + capability_name(capability) + " is not in its effective set"};
  if (!to_inside(subject.maps.uid, uid))
    return {false, "its capability " + capability_name(capability) + " does not count for files of uid " +
                       std::to_string(uid) + ", which its user namespace does not map"};
  if (!to_inside(subject.maps.gid, gid))
    return {false, "its capability " + capability_name(capability) + " does not count for files of group " +
                       std::to_string(gid) + ", which its user namespace does not map"};
  return {true, "capability " + capability_name(capability) +
                    " is in its effective set, and its user namespace maps the owners of the file"};
}

bool is_in_group(const Subject& subject, std::uint32_t gid) {
  const auto& groups = subject.who.groups;
  return subject.who.gid.filesystem == gid || std::find(groups.begin(), groups.end(), gid) != groups.end();
}

std::vector<std::string> describe_subject(const Subject& subject) {
  std::vector<std::string> facts{"process " + std::to_string(subject.pid) + " " + quote(subject.who.name) + ": uid " +
                                 show(subject.who.uid) + ", gid " + show(subject.who.gid) + ", user namespace " +
                                 std::to_string(subject.user_ns)};
  facts.push_back("effective capabilities: " + list_capabilities(subject));
  if (subject.who.has_no_new_privileges) facts.push_back("no_new_privs: programs that it runs gain nothing");
  if (subject.who.seccomp_mode == 2)
    facts.push_back("a filter of system calls (seccomp) is in force, which may refuse more than is said here");
  if (!subject.label.empty())
    facts.push_back("security label " + quote(subject.label) + ", whose policy may refuse more than is said here");
  return facts;
}

}  // namespace virtuserns::showinfo
