#include "tools/showinfo/tree.h"

#include <algorithm>

#include "conf/base/text.h"
#include "tools/showinfo/json.h"
#include "tools/showinfo/processes.h"

namespace virtuserns::showinfo {

namespace {

// In the order of the slide. Of the caller's own at `id` none are its own child.
std::vector<NamespaceId> children_of(const Host& host, NamespaceId id) {
  std::vector<NamespaceId> found;
  for (const auto& [child, ns] : host.namespaces)
    if (ns.parent == id && child != id) found.push_back(child);
  std::sort(found.begin(), found.end(), [&](NamespaceId a, NamespaceId b) { return comes_before(host, a, b); });
  return found;
}

std::string show_lines(const IdMapLines& lines) {
  std::vector<std::string> shown;
  for (const auto& line : lines)
    shown.push_back(std::to_string(line.inside) + " " + std::to_string(line.outside) + " " +
                    std::to_string(line.count));
  return shown.empty() ? "none" : join(shown, ", ");
}

std::string describe(const Host& host, NamespaceId id, const Names& names) {
  const auto& ns = host.namespaces.at(id);
  std::string text = std::to_string(id);
  if (const auto* domain = host.domain_of(id)) {
    text += " domain " + quote(domain->name);
    if (domain->owner != 0) text += " of " + names.user(domain->owner);
  }
  for (const auto& domain : host.domains)
    if (domain.controller_ns == id && id != host.own) text += " around domain " + quote(domain.name);
  text += ", owner " + (ns.owner ? names.user(*ns.owner) : "unknown") + ", " + std::to_string(ns.process_count) +
          (ns.process_count == 1 ? " process" : " processes");
  if (!ns.maps) return text + ", no process shows its maps";
  return text + ", uid " + show_lines(ns.maps->uid) + ", gid " + show_lines(ns.maps->gid);
}

void add_branch(std::string& text, const Host& host, NamespaceId id, const std::string& indent, const Names& names) {
  const auto below = children_of(host, id);
  for (const auto child : below) {
    const bool is_last = child == below.back();
    text += printable(indent + (is_last ? "`- " : "|- ") + describe(host, child, names), 64 * 1024) + "\n";
    add_branch(text, host, child, indent + (is_last ? "   " : "|  "), names);
  }
}

JsonList json_lines(const IdMapLines& lines) {
  JsonList list;
  for (const auto& line : lines)
    list.add(JsonObject().set("inside", line.inside).set("outside", line.outside).set("count", line.count));
  return list;
}

Json branch(const Host& host, NamespaceId id, const Names& names) {
  const auto& ns = host.namespaces.at(id);
  const auto* domain = host.domain_of(id);
  JsonObject object;
  object.set("usersns", id).set("owner", ns.owner ? Json(*ns.owner) : Json());
  object.set("owner_name", ns.owner ? Json(names.user(*ns.owner)) : Json());
  object.set("processes", ns.process_count).set("domain", domain ? Json(domain->name) : Json());
  object.set("domain_uuid", domain ? Json(domain->uuid) : Json());
  object.set("uid_map", ns.maps ? Json(json_lines(ns.maps->uid)) : Json());
  object.set("gid_map", ns.maps ? Json(json_lines(ns.maps->gid)) : Json());
  JsonList list;
  for (const auto child : children_of(host, id)) list.add(branch(host, child, names));
  return object.set("children", list);
}

}  // namespace

std::string format_tree(const Host& host, const Names& names) {
  std::string text = printable(describe(host, host.own, names), 64 * 1024) + "\n";
  add_branch(text, host, host.own, "", names);
  return text;
}

std::string format_tree_json(const Host& host, const Names& names) {
  return Json(JsonObject()
                  .set("schema", 1)
                  .set("hidden", host.hidden_count)
                  .set("tree", branch(host, host.own, names)))
             .format() +
         "\n";
}

}  // namespace virtuserns::showinfo
