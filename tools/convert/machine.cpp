#include "tools/convert/machine.h"

#include <sys/random.h>
#include <sys/utsname.h>

#include <algorithm>
#include <map>
#include <utility>

#include "tools/convert/images_xml.h"
#include "tools/convert/walk.h"

namespace virtuserns::convert {
namespace {

void append(std::vector<Finding>& to, std::vector<Finding> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

// File systems that no line of fstab places are no part of the container.
void report_unplaced(const Volumes& volumes, const Layout& layout, std::vector<Finding>& findings) {
  for (const auto& volume : volumes.all) {
    const bool is_placed = std::any_of(layout.places.begin(), layout.places.end(),
                                       [&](const auto& place) { return place.volume == volume; });
    if (is_mountable(volume) && !is_placed)
      findings.push_back({Severity::kLoss, "volume '" + volume.name + "'",
                          "has a file system (" + volume.type + ") that the guest's fstab does not mount",
                          "add it to the guest's fstab first, if the container needs it"});
  }
}

std::string host_arch() {
  utsname host{};
  return ::uname(&host) == 0 ? host.machine : "x86_64";
}

// As libvirt makes them: 52:54:00 and three bytes of chance.
Result<MacAddress> make_mac() {
  MacAddress mac{{0x52, 0x54, 0x00, 0, 0, 0}};
  if (::getrandom(mac.bytes.data() + 3, 3, 0) != 3) return sys_fail("make a MAC address");
  return mac;
}

Result<void> study_guest(const GuestMount& guest, const Settings& settings, Machine& machine) {
  const GuestFiles files(guest.root());
  machine.nics = name_nics(files, machine.vm.domain.nics, machine.findings);
  if (settings.is_clone)
    for (auto& nic : machine.nics) nic.former_mac = std::exchange(nic.mac, TRY(make_mac()));
  machine.shares = find_shares(files);
  for (const auto& target : guest.left_out())
    machine.findings.push_back(
        {Severity::kChange, "fstab '" + target + "'",
         "is not there to be mounted on, and will be made, as systemd does it; what is on the volume was not "
         "looked at",
         "mkdir it in the VM, to have it looked at"});
  const auto walked = TRY(walk(guest.root(), settings.id_count), "look at the files of the guest");
  append(machine.findings, findings_of(walked, settings.id_count));
  machine.file_bytes = walked.bytes;
  machine.rule_findings = plan_guest(guest.root(), guest_options(machine, settings));
  return {};
}

FilesystemDef filesystem(FilesystemType type, const std::string& source, const std::string& target) {
  FilesystemDef def;
  def.type = type;
  def.access_mode = "passthrough";
  def.source = source;
  def.target = target;
  return def;
}

}  // namespace

std::string overlay_name(const Placed& place) {
  std::string name = place.volume.name;
  std::replace(name.begin(), name.end(), '/', '-');
  return name + ".qcow2";
}

GuestOptions guest_options(const Machine& machine, const Settings& settings) {
  GuestOptions options;
  options.machine_id = settings.is_clone ? MachineId::kReset : MachineId::kKeep;
  options.nics = machine.nics;
  options.host_arch = host_arch();
  for (const auto& place : machine.layout.places) options.mounted_targets.push_back(place.target);
  return options;
}

Result<Machine> study_machine(SourceVm vm, const Settings& settings, const std::string& workplace) {
  Machine machine;
  machine.vm = std::move(vm);
  append(machine.findings, machine.vm.findings);
  DisksByName disks;
  for (const auto& disk : machine.vm.disks) {
    disks.emplace(disk.target, TRY(OpenDisk::open(disk.chain, Access::kRead, workplace)));
    TRY(check_image(disk.chain.front(), workplace), "disk '" + disk.target + "'");
  }
  std::vector<DiskView> views;
  for (const auto& [name, disk] : disks) views.push_back({name, &disk.file(), disk.reader()});
  auto volumes = TRY(find_volumes(views));
  append(machine.findings, std::move(volumes.findings));
  machine.layout = TRY(find_layout(disks, volumes.all, settings.root));
  append(machine.findings, machine.layout.findings);
  report_unplaced(volumes, machine.layout, machine.findings);
  std::map<std::string, std::uint64_t> sizes;
  for (const auto& place : machine.layout.places) sizes[place.volume.name] = place.volume.size;
  for (const auto& [_, size] : sizes) machine.volume_bytes += size;
  {
    auto guest = TRY(GuestMount::mount(disks, machine.layout.places, Access::kRead, workplace + "/guest"));
    TRY(study_guest(guest, settings, machine));
    TRY(guest.unmount());
  }
  for (auto& [_, disk] : disks) TRY(disk.close());
  return machine;
}

Parts make_parts(const Machine& machine, Mode mode, const std::string& folder, std::vector<Finding>& findings) {
  Parts made;
  if (mode == Mode::kTree) {
    made.filesystems.push_back(filesystem(FilesystemType::kMount, folder + "/root", "/"));
    return made;
  }
  if (mode == Mode::kImage) {
    made.filesystems.push_back(filesystem(FilesystemType::kFile, folder + "/root.img", "/"));
    made.filesystems.back().driver_type = "loop";
    made.filesystems.back().driver_format = "raw";
    return made;
  }
  std::map<std::string, int> uses;
  for (const auto& place : machine.layout.places) {
    if (++uses[place.volume.name] == 2)
      findings.push_back({Severity::kBlock, "volume '" + place.volume.name + "'",
                          "has several subvolumes that the guest mounts, and a container can have one of each volume",
                          "copy it, by --copy tree or --copy image"});
    made.filesystems.push_back(filesystem(FilesystemType::kFile, folder + "/" + overlay_name(place), place.target));
    made.filesystems.back().driver_type = "nbd";
    made.filesystems.back().driver_format = "qcow2";
    ImagePartDef part;
    part.target = place.target;
    part.offset_bytes = place.volume.offset;
    part.size_bytes = place.volume.size;
    part.subvolume = place.subvolume;
    for (const auto& disk : machine.vm.disks)
      if (disk.target == place.volume.disk)
        for (const auto& image : disk.chain) part.backings.push_back({image.path, image.format});
    made.parts.push_back(std::move(part));
  }
  return made;
}

Result<Mapped> map_machine(const Machine& machine, const Settings& settings, std::vector<FilesystemDef> filesystems,
                           const std::vector<ImagePartDef>& parts) {
  MapOptions options;
  options.name = settings.name;
  options.identity = settings.is_clone ? Identity::kCopy : Identity::kMove;
  options.filesystems = std::move(filesystems);
  for (const auto& place : machine.layout.places)
    if (std::find(options.converted_disks.begin(), options.converted_disks.end(), place.volume.disk) ==
        options.converted_disks.end())
      options.converted_disks.push_back(place.volume.disk);
  options.nics = machine.nics;
  options.shares = machine.shares;
  for (const auto& part : parts) options.userns_children += format_part(part);
  options.id_count = settings.id_count == kUsualIds ? 0 : settings.id_count;
  options.autostart = machine.vm.autostart;
  options.host_arch = host_arch();
  return map_domain(machine.vm.xml, options);
}

}  // namespace virtuserns::convert
