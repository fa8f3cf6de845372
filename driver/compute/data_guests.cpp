#include "driver/compute/data_guests.h"

#include "conf/base/text.h"
#include "driver/compute/domain_xml.h"
#include "driver/compute/guest_types.h"
#include "driver/compute/hypervisor.h"
#include "xml/writer.h"

namespace virtuserns::compute {
namespace {

using xml::Element;

constexpr Refusal kRefusals[] = {
    {"config_drive", "the instance is data of a test driver: it has nobody who would read a config drive"},
    {"console_output", "the instance is data of a test driver: what it says is kept nowhere"},
    {"crash_dump", "the instance is data of a test driver: there is nothing in it to be dumped"},
    {"extend_volume", "the instance is data of a test driver: it has no view of a volume that could grow"},
    {"files", "the instance is data of a test driver: it has no files"},
    {"images", "instances are data of a test driver: they need no image"},
    {"migrate", "the instance is data of one test driver, which nothing can move to another"},
    {"quiesce", "the instance is data of a test driver: it writes nothing that could wait"},
    {"rescue", "the instance is data of a test driver: it has no files to be repaired"},
    {"set_password", "the instance is data of a test driver: it has no users"},
    {"snapshot", "the instance is data of a test driver: it has no files"},
    {"swap_volume", "the instance is data of a test driver: it has nothing on its volumes"}};

class NoDisk final : public InstanceDisk {
 public:
  [[nodiscard]] std::string image() const override { return ""; }
  [[nodiscard]] bool exists() const override { return false; }
  [[nodiscard]] Result<bool> is_mounted() const override { return false; }
  [[nodiscard]] Result<void> mount() const override { return {}; }
  [[nodiscard]] Result<void> unmount() const override { return {}; }
  [[nodiscard]] Result<void> freeze() const override { return {}; }
  [[nodiscard]] Result<void> thaw() const override { return {}; }
  [[nodiscard]] Result<void> grow(std::uint64_t) const override { return {}; }
  [[nodiscard]] Result<std::uint64_t> size_bytes() const override { return std::uint64_t{0}; }
  [[nodiscard]] Result<void> remove() const override { return {}; }
  [[nodiscard]] Result<void> copy_to(const std::string&) const override { return {}; }
};

}  // namespace

std::span<const Refusal> DataGuests::refusals() const { return kRefusals; }
std::unique_ptr<InstanceDisk> DataGuests::disk(const std::string&) const { return std::make_unique<NoDisk>(); }
Result<std::string> DataGuests::interface_xml(const Vif& vif) const { return make_interface_xml(vif); }
std::string DataGuests::volume_xml(const VolumeRef& volume) const { return make_disk_xml(volume); }

Result<std::string> DataGuests::definition(const Instance& instance) const {
  const auto types = TRY(read_guest_types(TRY(hypervisor_.capabilities())));
  if (types.empty()) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "the hypervisor says of no guest that it can run it");
  const auto& type = types.front();
  const auto& spec = instance.record.spec;
  Element domain("domain"), os("os"), devices("devices");
  domain.attribute("type", type.virt).child("name", spec.name).child("uuid", spec.uuid);
  domain.child(Element("memory").attribute("unit", "KiB").text(std::to_string(spec.flavor.memory_mb * 1024)));
  domain.child("vcpu", spec.flavor.vcpus);
  os.child(Element("type").attribute("arch", type.arch).text(type.os));
  // Of a container a definition has to name both; nobody looks at them.
  const bool is_container = type.os == "exe";
  if (is_container) os.child("init", "/sbin/init");
  domain.child(std::move(os));
  if (is_container) {
    Element root("filesystem");
    root.attribute("type", "mount").child(Element("source").attribute("dir", "/"));
    devices.child(std::move(root.child(Element("target").attribute("dir", "/"))));
  }
  for (const auto& vif : instance.record.network) devices.raw("interface", trim(TRY(interface_xml(vif))));
  for (const auto& volume : instance.record.volumes) devices.raw("disk", trim(volume_xml(volume)));
  devices.child(Element("console").attribute("type", "pty"));
  domain.child(std::move(devices));
  return domain.to_string();
}

}  // namespace virtuserns::compute
