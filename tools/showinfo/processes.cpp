#include "tools/showinfo/processes.h"

#include <algorithm>
#include <tuple>

#include "conf/base/text.h"
#include "tools/showinfo/json.h"

namespace virtuserns::showinfo {

namespace {

bool answers_to(const Host& host, const Process& process, const std::string& wanted) {
  if (const auto pid = parse_number<pid_t>(wanted)) return process.pid == *pid;
  if (process.who.name == wanted) return true;
  const auto* domain = process.user_ns ? host.domain_of(*process.user_ns) : nullptr;
  return domain && domain->name == wanted;
}

std::string show_namespace(const Process& process) {
  return process.user_ns ? std::to_string(*process.user_ns) : "-";
}

}  // namespace

bool comes_before(const Host& host, NamespaceId a, NamespaceId b) {
  const auto key = [&](NamespaceId id) {
    const auto found = host.namespaces.find(id);
    std::uint64_t lowest = ~std::uint64_t{0};
    if (found != host.namespaces.end() && found->second.maps)
      for (const auto& line : found->second.maps->uid) lowest = std::min<std::uint64_t>(lowest, line.outside);
    return std::tuple(id != host.own, lowest, id);
  };
  return key(a) < key(b);
}

ProcessRows choose_processes(const Host& host, const std::vector<std::string>& wanted) {
  ProcessRows chosen;
  std::vector<bool> is_found(wanted.size());
  for (const auto& process : host.processes) {
    bool is_chosen = wanted.empty() && !is_of_the_kernel(process);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (!answers_to(host, process, wanted[i])) continue;
      is_chosen = is_found[i] = true;
    }
    if (is_chosen) chosen.rows.push_back(&process);
  }
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (!is_found[i]) chosen.missing.push_back(wanted[i]);
  std::stable_sort(chosen.rows.begin(), chosen.rows.end(), [&](const Process* a, const Process* b) {
    if (!a->user_ns || !b->user_ns) return a->user_ns && !b->user_ns;
    return a->user_ns != b->user_ns && comes_before(host, *a->user_ns, *b->user_ns);
  });
  return chosen;
}

std::string format_processes(const std::vector<const Process*>& rows, const Names& names) {
  std::vector<std::vector<std::string>> cells;
  for (const auto* row : rows)
    cells.push_back({row->who.name, names.user(row->who.uid.effective), names.group(row->who.gid.effective),
                     std::to_string(row->pid), show_namespace(*row)});
  return format_table({{"command"}, {"uid"}, {"gid"}, {"pid", Align::kRight}, {"usersns"}}, cells);
}

std::string format_processes_json(const Host& host, const std::vector<const Process*>& rows, const Names& names) {
  JsonList list;
  for (const auto* row : rows) {
    JsonObject object;
    object.set("command", row->who.name)
        .set("uid", row->who.uid.effective)
        .set("user", names.user(row->who.uid.effective))
        .set("gid", row->who.gid.effective)
        .set("group", names.group(row->who.gid.effective))
        .set("pid", row->pid)
        .set("inner_pid", row->who.ns_pids.empty() ? row->pid : row->who.ns_pids.back())
        .set("usersns", row->user_ns ? Json(*row->user_ns) : Json());
    const auto* domain = row->user_ns ? host.domain_of(*row->user_ns) : nullptr;
    list.add(object.set("domain", domain ? Json(domain->name) : Json()));
  }
  return Json(JsonObject().set("schema", 1).set("hidden", host.hidden_count).set("processes", list)).format() + "\n";
}

std::string format_hidden(const Host& host) {
  if (host.hidden_count == 0) return "";
  const bool is_one = host.hidden_count == 1;
  return "of " + std::to_string(host.hidden_count) + (is_one ? " process" : " processes") +
         " the user namespace is not visible to this user: left out of the tree, '-' in ps";
}

}  // namespace virtuserns::showinfo
