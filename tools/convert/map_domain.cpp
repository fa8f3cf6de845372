#include "tools/convert/map_domain.h"

#include <algorithm>
#include <array>
#include <map>

#include "conf/base/text.h"
#include "conf/defaults.h"
#include "conf/validate.h"
#include "tools/convert/kvm_devices.h"
#include "tools/convert/map_table.h"
#include "xml/kept.h"
#include "xml/metadata.h"
#include "xml/parts.h"

namespace virtuserns::convert {

using xml::Node;

namespace {

constexpr std::int64_t kMaxQuotaUs = 17'592'186'044'415;
constexpr std::uint64_t kDefaultPeriodUs = 100'000;
constexpr std::size_t kMaxUnknown = 40;  // elements that are named

// Containers of any make: they are no machines.
constexpr std::array kContainerTypes = {"lxc", "openvz", "vz", "exe"};

// One finding for each row of the table, with how often; elements without a row are named.
class Elements {
 public:
  void look(const Node& node, const std::string& path) {
    for (const Node child : node.children()) {
      const auto below = (path.empty() ? "" : path + "/") + std::string(child.name());
      const auto* row = find_row(below);
      if (row == nullptr)
        ++unknown_[below];
      else if (row->fate != Fate::kMapped)
        ++rows_[row];
      else if (!row->is_whole)
        look(child, below);
    }
  }

  void report(std::vector<Finding>& findings) const {
    for (const auto& [row, count] : rows_) {
      const std::string times = count > 1 ? " (" + std::to_string(count) + " of them)" : "";
      findings.push_back({row->severity, "<" + std::string(row->path) + ">", row->text + times, row->remedy});
    }
    std::size_t named = 0;
    for (const auto& [path, count] : unknown_) {
      if (++named > kMaxUnknown) {
        findings.push_back(
            {Severity::kLoss, "<domain>",
             std::to_string(unknown_.size() - kMaxUnknown) + " more elements are not known: they are dropped", ""});
        break;
      }
      findings.push_back({Severity::kLoss, "<" + path + ">", "is no element that is known: it is dropped",
                          "see what it did, and whether the domain needs it"});
    }
  }

 private:
  std::map<const ElementRow*, std::size_t> rows_;  // in the order of the table
  std::map<std::string, std::size_t> unknown_;
};

Result<void> map_identity(const Node& root, const MapOptions& options, Mapped& mapped) {
  auto& def = mapped.def;
  def.name = options.name.empty() ? TRY(root.only_child("name")).text() : options.name;
  const auto uuid = TRY(root.only_child("uuid"));
  if (uuid && options.identity == Identity::kMove) {
    const auto parsed = parse_uuid(uuid.text());
    if (!parsed) return uuid.error("invalid uuid " + quote(uuid.text()));
    def.uuid = *parsed, def.has_uuid = true;
  }
  if (const auto genid = TRY(root.only_child("genid"))) {
    if (options.identity == Identity::kMove) def.kept.push_back({"genid", xml::canonical(genid)});
    mapped.findings.push_back({Severity::kNote, "<genid>", "a container cannot read its generation id", ""});
  }
  def.title = TRY(root.only_child("title")).text();
  def.description = TRY(root.only_child("description")).text();
  def.metadata = xml::parse_metadata(TRY(root.only_child("metadata")));
  if (std::erase_if(def.metadata, [](const MetadataElement& e) { return e.uri == kUsernsUri; }) > 0)
    mapped.findings.push_back(
        {Severity::kNote, "<metadata>", "extensions for containers are not a machine's: they are left out", ""});
  std::string ours = options.userns_children;
  if (options.id_count > 0) ours += "<ids count='" + std::to_string(options.id_count) + "'/>";
  if (!ours.empty())
    TRY(xml::set_metadata(def, "<domain>" + ours + "</domain>", "userns", kUsernsUri), "extensions of the domain");
  return {};
}

// A machine's quota is for each virtual processor, a container's for all of them together.
void map_quota(const Node& node, Mapped& mapped) {
  auto& tune = mapped.def.cputune;
  const auto before = tune.quota_us;
  const auto cpus = mapped.def.vcpu.current.value_or(mapped.def.vcpu.max);
  if (tune.quota_us && *tune.quota_us > 0 && cpus > 1)
    tune.quota_us = *tune.quota_us > kMaxQuotaUs / cpus ? kMaxQuotaUs : *tune.quota_us * cpus;
  const auto global = node.child("global_quota"), global_period = node.child("global_period");
  const auto quota = global.text_number<std::int64_t>();
  if (global && quota && *quota > 0) {
    const auto period = global_period.text_number<std::uint64_t>();
    const auto period_us = global_period && period && *period > 0 ? *period : kDefaultPeriodUs;
    // The smaller share of a processor's time is the one that bites.
    const auto share = [](std::int64_t part, std::uint64_t whole) {
      return static_cast<double>(part) / static_cast<double>(whole);
    };
    const bool is_smaller =
        !tune.quota_us || *tune.quota_us <= 0 ||
        share(*quota, period_us) < share(*tune.quota_us, tune.period_us.value_or(kDefaultPeriodUs));
    if (is_smaller) tune.quota_us = *quota, tune.period_us = period_us;
  }
  if (tune.quota_us != before)
    mapped.findings.push_back({Severity::kChange, "<cputune>/<quota>",
                               "is " + std::to_string(*tune.quota_us) + " for all " + std::to_string(cpus) +
                                   " processors together: a container has no quota for each",
                               ""});
}

Result<void> map_processors(const Node& root, Mapped& mapped) {
  auto& def = mapped.def;
  TRY(xml::parse_vcpu(TRY(root.only_child("vcpu")), def.vcpu));
  def.vcpu.kept.clear();
  if (def.vcpu.placement == "auto") {
    def.vcpu.placement = "static";
    mapped.findings.push_back({Severity::kNote, "<vcpu>", "placement 'auto' is not there for containers", ""});
  }
  const auto cputune = TRY(root.only_child("cputune"));
  TRY(xml::parse_cputune(cputune, def.cputune));
  std::erase_if(def.cputune.kept, [](const KeptXml& kept) { return kept.name != "vcpupin"; });
  map_quota(cputune, mapped);
  TRY(xml::parse_numatune(TRY(root.only_child("numatune")), def.vcpu, def.numatune));
  def.numatune.kept.clear();
  if (def.numatune.placement == "auto") {
    mapped.findings.push_back({Severity::kNote, "<numatune>", "placement 'auto' is not there for containers", ""});
    def.numatune = {};
  }
  def.numatune.present = !def.numatune.mode.empty();
  return {};
}

Result<void> map_resources(const Node& root, Mapped& mapped) {
  auto& def = mapped.def;
  TRY(xml::parse_memory(root, def));
  std::erase_if(def.kept, [](const KeptXml& kept) { return kept.name.starts_with("memory/"); });
  TRY(xml::parse_memtune(TRY(root.only_child("memtune")), def.memtune));
  def.memtune.kept.clear(), def.memtune.min_guarantee_kib.reset();
  TRY(xml::parse_blkiotune(TRY(root.only_child("blkiotune")), def.blkio));
  def.blkio.kept.clear();
  TRY(map_processors(root, mapped));
  xml::parse_resource(TRY(root.only_child("resource")), def.resource);
  def.resource.kept.clear();
  def.resource.present = !def.resource.partition.empty();
  return {};
}

void report_clock(const Node& root, Mapped& mapped) {
  const auto offset = root.child("clock").attribute_or("offset", "utc");
  if (offset != "utc")
    mapped.findings.push_back({Severity::kNote, "<clock>",
                               "offset " + quote(offset) + " is of a hardware clock: the clock is the host's",
                               "the time zone inside is the guest's own"});
}

Result<void> check_machine(const Node& root, const MapOptions& options, Mapped& mapped) {
  if (!root.is("domain"))
    return root.error("unexpected root element <" + std::string(root.name()) + ">: <domain> is needed");
  const auto type = root.attribute_or("type");
  if (std::find(kContainerTypes.begin(), kContainerTypes.end(), type) != kContainerTypes.end())
    return root.error(VIR_ERR_CONFIG_UNSUPPORTED,
                      "domain is of type " + quote(type) + ": only machines are converted");
  const auto arch = root.child("os").child("type").attribute_or("arch");
  const bool is_32_on_64 = arch == "i686" && options.host_arch == "x86_64";
  if (arch.empty() || arch == options.host_arch || is_32_on_64) {
    mapped.def.os.arch = arch;
    return {};
  }
  mapped.findings.push_back({Severity::kBlock, "<os>/<type>",
                             "the machine is of " + quote(arch) + ", and this host of " + quote(options.host_arch),
                             "convert it on a host of that architecture"});
  return {};
}

}  // namespace

Result<Mapped> map_domain(std::string_view kvm_xml, const MapOptions& options) {
  const auto document = TRY(xml::Document::parse(kvm_xml));
  const auto root = document.root();
  Mapped mapped;
  auto& def = mapped.def;
  TRY(check_machine(root, options, mapped));
  TRY(map_identity(root, options, mapped));
  TRY(map_resources(root, mapped));
  TRY(xml::parse_lifecycle(root, def));
  def.os.init = options.init;
  report_clock(root, mapped);
  def.filesystems = options.filesystems;
  const auto devices = TRY(root.only_child("devices"));
  report_disks(devices, options, mapped);
  map_shares(devices, options, mapped);
  map_interfaces(devices, options, mapped);
  map_consoles(devices, mapped);
  Elements elements;
  elements.look(root, "");
  elements.report(mapped.findings);
  apply_defaults(def, {options.host_arch, {}});
  TRY(validate(def), "the definition of the container");
  for (const auto& line : unhonoured(def)) mapped.findings.push_back({Severity::kLoss, "definition", line, ""});
  if (options.autostart)
    mapped.findings.push_back(
        {Severity::kNote, "autostart", *options.autostart ? "is on, as it was" : "is off, as it was", ""});
  return mapped;
}

}  // namespace virtuserns::convert
