#include "xml/status.h"

#include <libvirt/libvirt.h>

#include <algorithm>

#include "xml/idmap.h"
#include "xml/parts.h"

namespace virtuserns::xml {

namespace {

// virDomainStateTypeToString
constexpr Word<int> kStates[] = {{"no state", VIR_DOMAIN_NOSTATE},     {"running", VIR_DOMAIN_RUNNING},
                                 {"idle", VIR_DOMAIN_BLOCKED},         {"paused", VIR_DOMAIN_PAUSED},
                                 {"in shutdown", VIR_DOMAIN_SHUTDOWN}, {"shut off", VIR_DOMAIN_SHUTOFF},
                                 {"crashed", VIR_DOMAIN_CRASHED},      {"pmsuspended", VIR_DOMAIN_PMSUSPENDED}};

template <std::integral T>
Result<T> needed(const Node& node, std::string_view name) {
  const auto value = TRY(node.number<T>(name));
  if (!value) return node.error("<" + std::string(node.name()) + "> has no " + std::string(name));
  return *value;
}

Result<void> check_names(const Node& node, std::initializer_list<std::string_view> attributes,
                         std::initializer_list<std::string_view> children) {
  const auto is_in = [](std::initializer_list<std::string_view> names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const auto& a : node.attributes())
    if (a.has_namespace || !is_in(attributes, a.name))
      return node.error("unknown attribute " + quote(a.name) + " in <" + std::string(node.name()) + ">");
  for (const Node child : node.children())
    if (!child.uri().empty() || !is_in(children, child.name()))
      return child.error("unknown element <" + std::string(child.name()) + "> in <" + std::string(node.name()) + ">");
  return {};
}

Result<void> parse_header(const Node& root, DomainStatus& status) {
  status.state = TRY(parse_word(root, "domain state", root.attribute_or("state"), kStates));
  status.reason = TRY(needed<int>(root, "reason"));
  status.started_ms = TRY(needed<std::uint64_t>(root, "started"));
  status.persistent = TRY(root.yes_no("persistent")).value_or(false);
  status.autodestroy = TRY(root.yes_no("autodestroy")).value_or(false);
  return {};
}

Result<void> parse_process(const Node& node, int& pid, std::uint64_t& start_time) {
  TRY(check_names(node, {"pid", "starttime"}, {}));
  pid = TRY(needed<int>(node, "pid"));
  start_time = TRY(needed<std::uint64_t>(node, "starttime"));
  if (pid <= 0) return node.error("pid of <" + std::string(node.name()) + "> must be above 0");
  return {};
}

Result<void> parse_facts(const Node& root, DomainStatus& status) {
  for (const Node node : root.children("fact")) {
    TRY(check_names(node, {"name"}, {}));
    const auto name = node.attribute_or("name");
    if (name.empty() || !status.facts.emplace(name, node.text()).second)
      return node.error("<fact> needs a name of its own, not " + quote(name));
  }
  return {};
}

void add_process(Element& element, const char* name, int pid, std::uint64_t start_time) {
  if (pid > 0) element.child(std::move(Element(name).attribute("pid", pid).attribute("starttime", start_time)));
}

}  // namespace

std::string format_status(const DomainStatus& status) {
  Element element("domstatus");
  element.attribute("version", status.format_version).attribute("state", word_of(status.state, kStates));
  element.attribute("reason", status.reason).attribute("started", status.started_ms);
  if (status.persistent) element.attribute("persistent", "yes");
  if (status.autodestroy) element.attribute("autodestroy", "yes");
  add_process(element, "controller", status.controller_pid, status.controller_start_time);
  add_process(element, "init", status.init_pid, status.init_start_time);
  element.child_if("cgroup", status.cgroup);
  element.child_if(make_idmap_lines("idmaps", status.maps));
  for (const auto& [name, value] : status.facts)
    element.child(std::move(Element("fact").attribute("name", name).text(value)));
  // Secrets stay in: this is a file of root's, and what is not written is lost.
  return element.child(make_domain(status.live, FormatKind::kStatus, Secrets::kShow)).to_string();
}

bool is_newer_status(std::string_view text) {
  const auto document = Document::parse(text);
  if (!document || !document->root().is("domstatus")) return false;
  const auto version = document->root().number<unsigned>("version");
  return version && version->value_or(0) > kStatusVersion;
}

Result<DomainStatus> parse_status(std::string_view text) {
  const auto document = TRY(Document::parse(text), "status");
  const Node root = document.root();
  if (!root.is("domstatus"))
    return root.error("unexpected root element <" + std::string(root.name()) + ">: <domstatus> is needed");
  DomainStatus status;
  status.format_version = TRY(needed<unsigned>(root, "version"), "status");
  if (status.format_version > kStatusVersion || status.format_version == 0)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "status: format version " + std::to_string(status.format_version) +
                                                " is not known, this program reads up to " +
                                                std::to_string(kStatusVersion));
  TRY(check_names(root, {"version", "state", "reason", "started", "persistent", "autodestroy"},
                  {"controller", "init", "cgroup", "idmaps", "fact", "domain"}),
      "status");
  TRY(parse_header(root, status), "status");
  const auto controller = TRY(root.only_child("controller"), "status");
  if (!controller) return fail(VIR_ERR_XML_ERROR, "status: <domstatus> has no <controller>");
  TRY(parse_process(controller, status.controller_pid, status.controller_start_time), "status");
  if (const auto init = TRY(root.only_child("init"), "status"))
    TRY(parse_process(init, status.init_pid, status.init_start_time), "status");
  status.cgroup = TRY(root.only_child("cgroup"), "status").text();
  status.maps = TRY(parse_idmap_lines(TRY(root.only_child("idmaps"), "status")), "status");
  TRY(parse_facts(root, status), "status");
  const auto domain = TRY(root.only_child("domain"), "status");
  if (!domain) return fail(VIR_ERR_XML_ERROR, "status: <domstatus> has no <domain>");
  status.live = TRY(parse_domain_node(domain, kParseLive), "status");
  return status;
}

}  // namespace virtuserns::xml
