#include "xml/caps.h"

#include <initializer_list>

#include "xml/writer.h"

namespace virtuserns::xml {

namespace {

Element make_cell(const NumaCell& cell) {
  Element element("cell");
  element.attribute("id", cell.id);
  if (cell.memory_kib != 0)
    element.child(std::move(Element("memory").attribute("unit", "KiB").text(std::to_string(cell.memory_kib))));
  for (const auto& pages : cell.pages)
    element.child(std::move(Element("pages")
                                .attribute("unit", "KiB")
                                .attribute("size", pages.size_kib)
                                .text(std::to_string(pages.count))));
  Element distances("distances");
  for (const auto& distance : cell.distances)
    distances.child(std::move(Element("sibling").attribute("id", distance.cell).attribute("value", distance.value)));
  element.child_if(std::move(distances));
  Element cpus("cpus");
  cpus.attribute("num", cell.cpus.size());
  for (const auto& cpu : cell.cpus) {
    Element child("cpu");
    child.attribute("id", cpu.id).attribute("socket_id", cpu.socket_id).attribute("die_id", cpu.die_id);
    cpus.child(std::move(child.attribute("core_id", cpu.core_id).attribute_if("siblings", cpu.siblings)));
  }
  element.child(std::move(cpus));
  return element;
}

Element make_host(const Capabilities& caps) {
  Element host("host");
  if (is_valid_uuid(caps.node.host_uuid)) host.child("uuid", format_uuid(caps.node.host_uuid));
  Element cpu("cpu");
  cpu.child("arch", caps.node.arch);
  for (const auto size : caps.node.page_sizes_kib)
    cpu.child(std::move(Element("pages").attribute("unit", "KiB").attribute("size", size)));
  host.child(std::move(cpu)).child(Element("power_management"));
  host.child(std::move(Element("iommu").attribute("support", "no")));
  if (!caps.node.cells.empty()) {
    Element cells("cells");
    cells.attribute("num", caps.node.cells.size());
    for (const auto& cell : caps.node.cells) cells.child(make_cell(cell));
    Element topology("topology");
    host.child(std::move(topology.child(std::move(cells))));
  }
  for (const auto& model : caps.secmodels) {
    Element secmodel("secmodel");
    host.child(std::move(secmodel.child("model", model).child("doi", "0")));
  }
  return host;
}

Element make_guest(const Capabilities& caps, const GuestArch& guest) {
  Element arch("arch");
  arch.attribute("name", guest.arch).child("wordsize", guest.word_size).child_if("emulator", guest.emulator);
  arch.child(std::move(Element("domain").attribute("type", caps.virt_type)));
  Element element("guest");
  element.child("os_type", caps.os_type).child(std::move(arch));
  return element;
}

Element make_supported(const char* name, bool is_supported) {
  Element element(name);
  element.attribute("supported", is_supported ? "yes" : "no");
  return element;
}

template <class Values>
Element make_enum(const char* name, const Values& values) {
  Element element("enum");
  element.attribute("name", name);
  for (const auto& value : values) element.child("value", value);
  return element;
}

using Words = std::initializer_list<std::string_view>;

Element make_domain_devices(const DomainCapabilities& caps) {
  Element devices("devices");
  Element disk = make_supported("disk", true);
  devices.child(std::move(disk.child(make_enum("diskDevice", Words{"disk", "cdrom"}))));
  // Said, and not left out: Nova's libvirt driver looks for the models of <video> without asking whether there is one.
  devices.child(make_supported("graphics", false)).child(make_supported("video", false));
  Element hostdev = make_supported("hostdev", true);
  hostdev.child(make_enum("mode", Words{"subsystem", "capabilities"}));
  hostdev.child(make_enum("subsysType", Words{"usb"})).child(make_enum("capsType", Words{"storage", "misc", "net"}));
  devices.child(std::move(hostdev));
  Element filesystem = make_supported("filesystem", true);
  devices.child(std::move(filesystem.child(make_enum("driverType", caps.filesystem_driver_types))));
  return devices;
}

}  // namespace

std::string format_capabilities(const Capabilities& caps) {
  // The empty lines are libvirt's.
  std::string text = "<capabilities>\n\n" + make_host(caps).to_string(1) + "\n";
  for (const auto& guest : caps.guests) text += make_guest(caps, guest).to_string(1) + "\n";
  return text + "</capabilities>\n";
}

std::string format_domain_capabilities(const DomainCapabilities& caps) {
  Element element("domainCapabilities");
  element.child("path", caps.path).child("domain", caps.domain_type).child_if("machine", caps.machine);
  element.child("arch", caps.arch);
  if (caps.max_vcpus != 0) element.child(std::move(Element("vcpu").attribute("max", caps.max_vcpus)));
  element.child(make_supported("iothreads", false)).child(make_supported("os", false));
  Element cpu("cpu");
  for (const auto mode : {"host-passthrough", "maximum", "host-model", "custom"})
    cpu.child(std::move(Element("mode").attribute("name", mode).attribute("supported", "no")));
  element.child(std::move(cpu)).child(make_supported("memoryBacking", false)).child(make_domain_devices(caps));
  Element features("features");
  for (const auto name : {"gic", "vmcoreinfo", "genid", "backingStoreInput", "backup"})
    features.child(make_supported(name, false));
  return element.child(std::move(features)).to_string();
}

}  // namespace virtuserns::xml
