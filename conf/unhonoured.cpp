// What a definition says and nothing will be done about: one line each, for `virsh dominfo`.
#include <algorithm>

#include "conf/base/text.h"
#include "conf/validate.h"

namespace virtuserns {

namespace {

// Kept as text because the model has no use for it, yet without a promise to break: bookkeeping of libvirt and
// clients.
constexpr std::string_view kHarmless[] = {
    "genid",         "source/@bridge", "source/@portid", "source/@macTableManager",
    "guest/@actual", "clock/@basis",   "master",         "@snapshot"};

class Lines {
 public:
  void add(const std::string& where, const std::vector<KeptXml>& kept, const std::string& prefix = {}) {
    for (const auto& item : kept) {
      const auto name = prefix + item.name;
      if (std::find(std::begin(kHarmless), std::end(kHarmless), name) != std::end(kHarmless)) continue;
      lines_.push_back(where + describe(item.name) + " is kept but has no effect");
    }
  }
  void add(std::string line) { lines_.push_back(std::move(line)); }
  std::vector<std::string> take() { return std::move(lines_); }

 private:
  static std::string describe(const std::string& name) {
    const auto slash = name.rfind('/');
    const auto parent = slash == std::string::npos ? std::string() : " of <" + name.substr(0, slash) + ">";
    const auto last = slash == std::string::npos ? name : name.substr(slash + 1);
    return last.starts_with("@") ? "attribute '" + last.substr(1) + "'" + parent : "element <" + last + ">" + parent;
  }

  std::vector<std::string> lines_;
};

void add_devices(const DomainDef& def, Lines& lines) {
  for (const auto& d : def.filesystems) lines.add("filesystem " + quote(d.target) + ": ", d.kept);
  for (const auto& d : def.disks) lines.add("disk " + quote(d.target_dev) + ": ", d.kept);
  for (std::size_t i = 0; i < def.interfaces.size(); ++i) {
    const auto& d = def.interfaces[i];
    const auto where = "interface " + (d.guest_dev.empty() ? std::to_string(i) : quote(d.guest_dev)) + ": ";
    lines.add(where, d.kept);
    if (!d.model.empty()) lines.add(where + "element <model> is kept but has no effect");
  }
  for (const auto& d : def.consoles) lines.add("console " + std::to_string(d.target_port) + ": ", d.kept);
  for (const auto& d : def.hostdevs) lines.add("hostdev " + quote(d.source) + ": ", d.kept);
  lines.add("devices: ", def.kept_devices);
}

}  // namespace

std::vector<std::string> unhonoured(const DomainDef& def) {
  Lines lines;
  lines.add("", def.kept);
  lines.add("memtune: ", def.memtune.kept);
  lines.add("blkiotune: ", def.blkio.kept);
  lines.add("vcpu: ", def.vcpu.kept);
  auto cputune = def.cputune.kept;
  std::erase_if(cputune, [](const KeptXml& kept) { return kept.name == "vcpupin"; });  // text, but read by vcpu_pins
  lines.add("cputune: ", cputune);
  lines.add("numatune: ", def.numatune.kept);
  lines.add("resource: ", def.resource.kept);
  lines.add("os: ", def.os.kept);
  lines.add("features: ", def.features.kept);
  lines.add("clock: ", def.clock.kept, "clock/");
  for (const auto& timer : def.clock.timers) {
    // A device node, present or absent, is all that a timer can be here.
    if (timer.name != "rtc" && timer.name != "hpet")
      lines.add("clock: timer " + quote(timer.name) + " has no effect");
    else
      lines.add("timer " + quote(timer.name) + ": ", timer.kept);
  }
  add_devices(def, lines);
  for (const auto& target : unused_image_parts(def))
    lines.add("<userns:image> " + quote(target) +
              " has no effect: no <filesystem type='file'> or 'block' has this target");
  for (const auto& target : unused_overlays(def))
    lines.add("<userns:overlay> " + quote(target) + " has no effect: no <filesystem type='mount'> has this target");
  for (const auto& label : def.seclabels) lines.add("seclabel " + quote(label.model) + ": ", label.kept);
  return lines.take();
}

}  // namespace virtuserns
