#include "xml/domain.h"

#include <algorithm>
#include <set>

#include "xml/devices.h"
#include "xml/idmap.h"
#include "xml/kept.h"
#include "xml/metadata.h"
#include "xml/order.h"
#include "xml/parts.h"
#include "xml/schema.h"

namespace virtuserns::xml {

namespace {

constexpr std::string_view kLxcUri = "http://libvirt.org/schemas/domain/lxc/1.0";

constexpr Word<LifecycleAction> kActions[] = {{"destroy", LifecycleAction::kDestroy},
                                              {"restart", LifecycleAction::kRestart},
                                              {"rename-restart", LifecycleAction::kRenameRestart},
                                              {"preserve", LifecycleAction::kPreserve}};
constexpr Word<LifecycleAction> kCrashActions[] = {{"destroy", LifecycleAction::kDestroy},
                                                   {"restart", LifecycleAction::kRestart},
                                                   {"rename-restart", LifecycleAction::kRenameRestart},
                                                   {"preserve", LifecycleAction::kPreserve},
                                                   {"coredump-destroy", LifecycleAction::kCoredumpDestroy},
                                                   {"coredump-restart", LifecycleAction::kCoredumpRestart}};

Result<void> parse_identity(const Node& root, unsigned flags, DomainDef& def) {
  const auto type = root.attribute("type");
  if (!type) return root.error("<domain> has no type: write <domain type='lxc'>");
  def.virt_type = *type;
  if ((flags & kParseLive) != 0) def.id = TRY(root.number<int>("id")).value_or(-1);
  const auto name = TRY(root.only_child("name"));
  if (!name) return root.error(VIR_ERR_NO_NAME, "<domain> has no <name>");
  def.name = name.text();
  if (const auto uuid = TRY(root.only_child("uuid"))) {
    const auto text = uuid.text();
    const auto parsed = parse_uuid(text);
    if (!parsed) return uuid.error("invalid uuid " + quote(text));
    def.uuid = *parsed;
    def.has_uuid = true;
  }
  def.title = TRY(root.only_child("title")).text();
  def.description = TRY(root.only_child("description")).text();
  const auto metadata = TRY(root.only_child("metadata"));
  def.metadata = parse_metadata(metadata);
  for (const Node child : metadata.children()) {
    if (child.uri() != kUsernsUri) continue;
    def.userns = TRY(parse_userns(child));
    break;
  }
  return {};
}

Result<void> parse_resources(const Node& root, DomainDef& def) {
  TRY(parse_memory(root, def));
  TRY(parse_memtune(TRY(root.only_child("memtune")), def.memtune));
  TRY(parse_blkiotune(TRY(root.only_child("blkiotune")), def.blkio));
  TRY(parse_vcpu(TRY(root.only_child("vcpu")), def.vcpu));
  TRY(parse_cputune(TRY(root.only_child("cputune")), def.cputune));
  TRY(parse_numatune(TRY(root.only_child("numatune")), def.vcpu, def.numatune));
  const bool is_pinned = std::any_of(def.cputune.kept.begin(), def.cputune.kept.end(), [](const KeptXml& k) {
    return k.name == "vcpupin" || k.name == "emulatorpin" || k.name == "iothreadpin";
  });
  // As libvirt: automatic memory placement draws the processors along unless they are pinned.
  if (def.numatune.placement == "auto" && def.vcpu.cpuset.empty() && !is_pinned) def.vcpu.placement = "auto";
  parse_resource(TRY(root.only_child("resource")), def.resource);
  return {};
}

Result<void> parse_labels(const Node& root, unsigned flags, DomainDef& def) {
  std::set<std::string> models;
  for (const Node node : root.children("seclabel")) {
    auto label = TRY(parse_seclabel(node, flags));
    if (!models.insert(label.model).second)
      return node.error(VIR_ERR_XML_DETAIL, "a seclabel for model " + quote(label.model) + " is already there");
    def.seclabels.push_back(std::move(label));
  }
  bool is_seen = false;
  for (const Node node : root.children()) {
    if (node.name() != "namespace" || node.uri() != kLxcUri) continue;
    if (is_seen) return node.error("<lxc:namespace> appears twice");
    is_seen = true;
    def.shared_namespaces = TRY(parse_shared_namespaces(node));
  }
  return {};
}

}  // namespace

Result<void> parse_lifecycle(const Node& root, DomainDef& def) {
  if (const auto node = TRY(root.only_child("on_poweroff")))
    def.on_poweroff = TRY(parse_word(node, "lifecycle action", trim(node.text()), kActions));
  if (const auto node = TRY(root.only_child("on_reboot")))
    def.on_reboot = TRY(parse_word(node, "lifecycle action", trim(node.text()), kActions));
  if (const auto node = TRY(root.only_child("on_crash")))
    def.on_crash = TRY(parse_word(node, "lifecycle action", trim(node.text()), kCrashActions));
  return {};
}

Result<DomainDef> parse_domain_node(const Node& root, unsigned flags) {
  if (!root.is("domain"))
    return root.error("unexpected root element <" + std::string(root.name()) + ">: <domain> is needed");
  DomainDef def;
  TRY(parse_identity(root, flags, def));
  TRY(parse_resources(root, def));
  TRY(parse_os(TRY(root.only_child("os")), def.os));
  def.idmap = TRY(parse_idmap(TRY(root.only_child("idmap"))));
  TRY(parse_features(TRY(root.only_child("features")), def.features));
  TRY(parse_clock(TRY(root.only_child("clock")), def.clock));
  TRY(parse_lifecycle(root, def));
  TRY(parse_devices(TRY(root.only_child("devices")), flags, def));
  TRY(parse_labels(root, flags, def));
  std::vector<KeptXml> rest;
  keep_rest(root, {"type", "id"}, {"name",          "uuid",     "title",     "description", "metadata", "memory",
                                   "currentMemory", "memtune",  "blkiotune", "vcpu",        "cputune",  "numatune",
                                   "resource",      "os",       "idmap",     "features",    "clock",    "on_poweroff",
                                   "on_reboot",     "on_crash", "devices",   "seclabel"},
            rest);
  for (const Node child : root.children())
    if (child.name() == "namespace" && child.uri() == kLxcUri)
      std::erase_if(rest, [&](const KeptXml& k) { return k.xml == canonical(child); });
  std::move(rest.begin(), rest.end(), std::back_inserter(def.kept));
  return def;
}

Result<DomainDef> parse_domain(std::string_view text, unsigned flags) {
  const auto document = TRY(Document::parse(text));
  if ((flags & kParseSchema) != 0) TRY(validate_schema(document, "domain.rng"));
  return parse_domain_node(document.root(), flags);
}

namespace {

void add_resources(Element& element, const DomainDef& def) {
  Element memory("memory");
  memory.attribute("unit", "KiB").text(std::to_string(def.max_memory_kib));
  element.child(std::move(memory.kept(def.kept, "memory/").sort(order::kMemoryAttributes, {})));
  const auto current = def.current_memory_kib == 0 ? def.max_memory_kib : def.current_memory_kib;
  element.child(std::move(Element("currentMemory").attribute("unit", "KiB").text(std::to_string(current))));
  element.child_if(make_blkiotune(def.blkio)).child_if(make_memtune(def.memtune)).child(make_vcpu(def.vcpu));
  element.child_if(make_cputune(def.cputune))
      .child_if(make_numatune(def.numatune))
      .child_if(make_resource(def.resource));
}

}  // namespace

Element make_domain(const DomainDef& def, FormatKind kind, Secrets secrets) {
  if (def.id == -1) kind = FormatKind::kInactive;
  Element element("domain");
  element.attribute("type", def.virt_type);
  if (kind != FormatKind::kInactive) element.attribute("id", def.id);
  if (!def.shared_namespaces.empty()) element.attribute("xmlns:lxc", kLxcUri);
  element.child("name", def.name).child("uuid", format_uuid(def.uuid));
  element.child_if("title", def.title).child_if("description", def.description);
  Element metadata("metadata");
  for (const auto& item : def.metadata) metadata.raw(item.uri, item.xml);
  element.child_if(std::move(metadata));
  add_resources(element, def);
  element.child(make_os(def.os)).child_if(make_idmap(def.idmap)).child_if(make_features(def.features));
  element.child(make_clock(def.clock));
  element.child("on_poweroff", word_of(def.on_poweroff, kActions));
  element.child("on_reboot", word_of(def.on_reboot, kActions));
  element.child("on_crash", word_of(def.on_crash, kCrashActions));
  element.child(make_devices(def, kind, secrets));
  for (const auto& label : def.seclabels) element.child(make_seclabel(label));
  if (!def.shared_namespaces.empty()) element.child(make_shared_namespaces(def.shared_namespaces));
  return element.kept(def.kept).sort({}, order::kDomain);
}

std::string format_domain(const DomainDef& def, FormatKind kind, Secrets secrets) {
  return make_domain(def, kind, secrets).to_string();
}

}  // namespace virtuserns::xml
