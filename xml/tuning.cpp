// <memory> to <resource>: what a domain may consume.
#include <limits>

#include "xml/kept.h"
#include "xml/order.h"
#include "xml/parts.h"

namespace virtuserns::xml {

namespace {

// VIR_DOMAIN_MEMORY_PARAM_UNLIMITED: libvirt takes this and more as "no limit".
constexpr std::uint64_t kUnlimitedKib = 9007199254740991;

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return lower(x) == lower(y); });
}

// virScaleInteger: one letter or letter + "iB" is a power of 1024, letter + "B" of 1000. 0: not a unit.
std::uint64_t scale_of(std::string_view unit) {
  for (const std::string_view word : {"b", "byte", "bytes"})
    if (equals_ignoring_case(unit, word)) return 1;
  const bool is_binary = unit.size() == 1 || equals_ignoring_case(unit.substr(1), "ib");
  if (!is_binary && !equals_ignoring_case(unit.substr(1), "b")) return 0;
  constexpr std::string_view kLetters = "kmgtpe";
  const auto letter = kLetters.find(static_cast<char>(unit.front() | 0x20));
  if (letter == std::string_view::npos) return 0;
  std::uint64_t scale = 1;
  for (std::size_t i = 0; i <= letter; ++i) scale *= is_binary ? 1024 : 1000;
  return scale;
}

Result<std::string> parse_cpuset(const Node& node, std::string_view attribute) {
  const auto text = node.attribute(attribute);
  if (!text) return std::string();
  const auto bits = parse_bitmap(*text);
  if (bits) {
    auto normal = format_bitmap(*bits);
    if (!normal.empty()) return normal;
  }
  return node.error("invalid value " + quote(*text) + " for attribute '" + std::string(attribute) + "' of <" +
                    std::string(node.name()) + ">: a list such as '0-3,^2' is needed");
}

}  // namespace

Result<std::string> parse_choice(const Node& node, std::string_view what, std::string text,
                                 std::initializer_list<std::string_view> words, int code) {
  std::string known;
  for (const auto& word : words) {
    if (word == text) return text;
    known += (known.empty() ? "" : ", ") + std::string(word);
  }
  return node.error(code, "unknown " + std::string(what) + " " + quote(text) + ": known are " + known);
}

Result<std::uint64_t> parse_scaled(const Node& node, std::string_view digits, std::string_view unit,
                                   std::uint64_t scale) {
  const auto number = parse_number<std::uint64_t>(trim(digits));
  if (!number)
    return node.error("invalid size " + quote(digits) + " in <" + std::string(node.name()) +
                      ">: a whole number is needed");
  if (!unit.empty()) scale = scale_of(unit);
  if (scale == 0) return node.error("unknown unit " + quote(unit) + " in <" + std::string(node.name()) + ">");
  if (*number > std::numeric_limits<std::uint64_t>::max() / scale)
    return node.error(VIR_ERR_OVERFLOW,
                      "size " + quote(digits) + " in <" + std::string(node.name()) + "> is too large");
  return *number * scale;
}

Result<std::uint64_t> parse_kib(const Node& node) {
  const auto bytes = TRY(parse_scaled(node, node.text(), node.attribute_or("unit"), 1024));
  return bytes / 1024 + (bytes % 1024 != 0 ? 1 : 0);
}

Result<void> parse_memory(const Node& root, DomainDef& def) {
  if (const auto node = TRY(root.only_child("memory"))) {
    def.max_memory_kib = TRY(parse_kib(node));
    keep_rest(node, {"unit"}, {}, def.kept, "memory/");
  }
  if (const auto node = TRY(root.only_child("currentMemory"))) def.current_memory_kib = TRY(parse_kib(node));
  return {};
}

Result<void> parse_memtune(const Node& node, MemoryTune& tune) {
  const std::pair<const char*, std::optional<std::uint64_t>*> limits[] = {
      {"hard_limit", &tune.hard_limit_kib},
      {"soft_limit", &tune.soft_limit_kib},
      {"min_guarantee", &tune.min_guarantee_kib},
      {"swap_hard_limit", &tune.swap_hard_limit_kib}};
  for (const auto& [name, limit] : limits) {
    const auto child = TRY(node.only_child(name));
    if (!child) continue;
    const auto kib = TRY(parse_kib(child));
    const bool is_set = kib < kUnlimitedKib && (kib != 0 || limit != &tune.min_guarantee_kib);
    if (is_set) *limit = kib;
  }
  keep_rest(node, {}, {"hard_limit", "soft_limit", "min_guarantee", "swap_hard_limit"}, tune.kept);
  return {};
}

Element make_memtune(const MemoryTune& tune) {
  Element element("memtune");
  const auto add = [&](const char* name, const std::optional<std::uint64_t>& kib) {
    if (kib) element.child(std::move(Element(name).attribute("unit", "KiB").text(std::to_string(*kib))));
  };
  add("hard_limit", tune.hard_limit_kib);
  add("soft_limit", tune.soft_limit_kib);
  add("min_guarantee", tune.min_guarantee_kib);
  add("swap_hard_limit", tune.swap_hard_limit_kib);
  return element.kept(tune.kept);
}

namespace {

// libvirt reads 0 as "not set".
template <class T>
Result<void> parse_nonzero(const Node& parent, std::string_view name, std::optional<T>& value) {
  const auto node = TRY(parent.only_child(name));
  if (!node) return {};
  const T number = TRY(node.text_number<T>());
  if (number != 0) value = number;
  return {};
}

Result<BlkioDevice> parse_blkio_device(const Node& node) {
  BlkioDevice device;
  device.path = TRY(node.only_child("path")).text();
  if (device.path.empty())
    return node.error(VIR_ERR_CONFIG_UNSUPPORTED, "<device> of <blkiotune> has no <path>: name a block device");
  TRY(parse_nonzero(node, "weight", device.weight));
  TRY(parse_nonzero(node, "read_iops_sec", device.read_iops));
  TRY(parse_nonzero(node, "write_iops_sec", device.write_iops));
  TRY(parse_nonzero(node, "read_bytes_sec", device.read_bytes));
  TRY(parse_nonzero(node, "write_bytes_sec", device.write_bytes));
  return device;
}

template <class T>
void add_number(Element& element, std::string_view name, const std::optional<T>& value) {
  if (value) element.child(name, *value);
}

}  // namespace

Result<void> parse_blkiotune(const Node& node, BlkioTune& tune) {
  TRY(parse_nonzero(node, "weight", tune.weight));
  for (const Node child : node.children("device")) {
    auto device = TRY(parse_blkio_device(child));
    if (device.weight || device.read_iops || device.write_iops || device.read_bytes || device.write_bytes)
      tune.devices.push_back(std::move(device));
  }
  keep_rest(node, {}, {"weight", "device"}, tune.kept);
  return {};
}

Element make_blkiotune(const BlkioTune& tune) {
  Element element("blkiotune");
  add_number(element, "weight", tune.weight);
  for (const auto& device : tune.devices) {
    Element child("device");
    child.child("path", device.path);
    add_number(child, "weight", device.weight);
    add_number(child, "read_iops_sec", device.read_iops);
    add_number(child, "write_iops_sec", device.write_iops);
    add_number(child, "read_bytes_sec", device.read_bytes);
    add_number(child, "write_bytes_sec", device.write_bytes);
    element.child(std::move(child));
  }
  return element.kept(tune.kept);
}

Result<void> parse_vcpu(const Node& node, VcpuDef& vcpu) {
  vcpu.placement = "static";
  if (!node) return {};
  vcpu.max = TRY(node.text_number<std::uint32_t>());
  const auto current = TRY(node.number<std::uint32_t>("current"));
  if (current && *current != vcpu.max) vcpu.current = current;
  vcpu.placement =
      TRY(parse_choice(node, "vcpu placement", node.attribute_or("placement", "static"), {"static", "auto"}));
  // With automatic placement a cpuset has no meaning, and libvirt does not read it.
  if (vcpu.placement == "static") vcpu.cpuset = TRY(parse_cpuset(node, "cpuset"));
  keep_rest(node, {"current", "placement", "cpuset"}, {}, vcpu.kept);
  return {};
}

Element make_vcpu(const VcpuDef& vcpu) {
  Element element("vcpu");
  element.attribute("placement", vcpu.placement.empty() ? "static" : vcpu.placement)
      .attribute_if("cpuset", vcpu.cpuset);
  if (vcpu.current) element.attribute("current", *vcpu.current);
  return element.kept(vcpu.kept).text(std::to_string(vcpu.max));
}

Result<void> parse_cputune(const Node& node, CpuTune& tune) {
  if (const auto shares = TRY(node.only_child("shares"))) tune.shares = TRY(shares.text_number<std::uint64_t>());
  TRY(parse_nonzero(node, "period", tune.period_us));
  TRY(parse_nonzero(node, "quota", tune.quota_us));
  keep_rest(node, {}, {"shares", "period", "quota"}, tune.kept);
  return {};
}

Element make_cputune(const CpuTune& tune) {
  Element element("cputune");
  add_number(element, "shares", tune.shares);
  add_number(element, "period", tune.period_us);
  add_number(element, "quota", tune.quota_us);
  return element.kept(tune.kept).sort({}, order::kCpuTune);
}

// virDomainNumatuneSet: the placement follows from the node set, and the node set from the placement.
Result<void> parse_numatune(const Node& node, const VcpuDef& vcpu, NumaTune& tune) {
  const auto memory = TRY(node.only_child("memory"));
  keep_rest(node, {}, {"memory"}, tune.kept);
  tune.present = memory || !tune.kept.empty();
  if (!memory) {
    if (vcpu.placement == "auto") tune.present = true, tune.mode = "strict", tune.placement = "auto";
    return {};
  }
  tune.mode = TRY(parse_choice(memory, "NUMA memory mode", memory.attribute_or("mode", "strict"),
                               {"strict", "preferred", "interleave", "restrictive"}, VIR_ERR_CONFIG_UNSUPPORTED));
  tune.nodeset = TRY(parse_cpuset(memory, "nodeset"));
  const bool is_auto = tune.nodeset.empty() && vcpu.placement == "auto";
  tune.placement =
      TRY(parse_choice(memory, "NUMA memory placement", memory.attribute_or("placement", is_auto ? "auto" : "static"),
                       {"static", "auto"}, VIR_ERR_CONFIG_UNSUPPORTED));
  if (tune.placement == "auto") tune.nodeset.clear();
  if (tune.placement == "static" && tune.nodeset.empty())
    return memory.error(VIR_ERR_CONFIG_UNSUPPORTED,
                        "<memory> of <numatune> has no nodeset: set one, or use placement='auto'");
  return {};
}

Element make_numatune(const NumaTune& tune) {
  Element element("numatune");
  if (!tune.mode.empty()) {
    Element memory("memory");
    memory.attribute("mode", tune.mode);
    if (tune.placement == "auto")
      memory.attribute("placement", "auto");
    else
      memory.attribute("nodeset", tune.nodeset);
    element.child(std::move(memory));
  }
  return element.kept(tune.kept);
}

void parse_resource(const Node& node, ResourceDef& resource) {
  resource.partition = node.child("partition").text();
  keep_rest(node, {}, {"partition"}, resource.kept);
  resource.present = !resource.partition.empty() || !resource.kept.empty();
}

Element make_resource(const ResourceDef& resource) {
  Element element("resource");
  return element.child_if("partition", resource.partition).kept(resource.kept);
}

}  // namespace virtuserns::xml
