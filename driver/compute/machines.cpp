#include "driver/compute/machines.h"

#include <sys/stat.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/compute/disk.h"
#include "driver/compute/host.h"
#include "driver/compute/hypervisor.h"
#include "driver/compute/machine_xml.h"
#include "driver/compute/packing.h"
#include "driver/compute/tree.h"
#include "driver/kernel/program.h"

namespace virtuserns::compute {
namespace {

constexpr int kProgramMs = 3'600'000;
constexpr const char *kDrive = "/config-2.iso", *kDriveFiles = "/config-2";

constexpr Refusal kRefusals[] = {
    {"extend_volume", "a machine that runs is not told of a volume that has grown: detach it, and attach it again"},
    {"files",
     "the instance is a machine, whose file systems are nobody's to be opened here: give files by the config drive"},
    {"migrate", "machines are not moved between hosts by this program: use a snapshot"},
    {"quiesce", "the instance is a machine: only an agent inside could have it stand still"},
    {"set_password",
     "the instance is a machine, whose file systems are nobody's to be opened here: give a password by the config drive"},
    {"swap_volume", "a machine that stands still, as it has to for that, lets go of no volume"}};

}  // namespace

std::span<const Refusal> Machines::refusals() const { return kRefusals; }

std::vector<std::string_view> Machines::image_formats() const {
  return {"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx"};
}

// An emulated processor has none of the host's.
Result<std::vector<std::string>> Machines::traits() const {
  if (TRY(choose_machine_type(TRY(read_guest_types(TRY(hypervisor_.capabilities()))))).virt != "kvm")
    return std::vector<std::string>();
  return cpu_traits(TRY(read_kernel_file("/proc/cpuinfo")));
}

std::unique_ptr<InstanceDisk> Machines::disk(const std::string& folder) const {
  return std::make_unique<MachineDisk>(MachineDisk::own(folder));
}

Result<void> Machines::make_disk(const Instance& instance, std::uint64_t bytes) const {
  const auto& record = instance.record;
  const auto own = MachineDisk::own(instance.folder), rescue = MachineDisk::rescue(instance.folder);
  if ((!record.image || own.exists()) && (!record.rescue || rescue.exists())) return {};
  const auto capabilities = TRY(hypervisor_.capabilities());
  const auto type = TRY(choose_machine_type(TRY(read_guest_types(capabilities))));
  const auto readers = TRY(read_guest_group(capabilities, type.virt));
  const auto make = [&](const MachineDisk& disk, const ImageRef& image) -> Result<void> {
    if (disk.exists()) return {};
    TRY(disk.create(TRY(bases_.find(image.key)) + "/disk", bytes, readers), "make the disk of the instance");
    return {};
  };
  if (record.image) TRY(make(own, *record.image));
  if (record.rescue) TRY(make(rescue, *record.rescue));
  return {};
}

Result<std::string> Machines::definition(const Instance& instance) const {
  const auto& record = instance.record;
  MachineParts parts;
  const auto own = MachineDisk::own(instance.folder), rescue = MachineDisk::rescue(instance.folder);
  if (record.image) parts.disk = own.image(), parts.disk_base = own.base();
  if (record.rescue) parts.rescue_disk = rescue.image(), parts.rescue_base = rescue.base();
  if (record.has_config_drive) parts.config_drive = instance.folder + kDrive;
  parts.console_log = instance.folder + "/console.log";
  const auto type = TRY(choose_machine_type(TRY(read_guest_types(TRY(hypervisor_.capabilities())))));
  return make_machine_xml(record, type, parts);
}

Result<std::string> Machines::interface_xml(const Vif& vif) const { return make_machine_interface(vif); }
std::string Machines::volume_xml(const VolumeRef& volume) const { return make_machine_volume(volume); }

// As cloud-init looks for it: ISO 9660 with that label.
Result<void> Machines::write_config_drive(const Instance& instance, const std::vector<FileToWrite>& files) const {
  const auto folder = instance.folder + kDriveFiles, drive = instance.folder + kDrive, temporary = drive + ".new";
  TRY(make_config_drive(folder, files));
  (void)TRY(kernel::need_program({"genisoimage", "-quiet", "-o", temporary, "-V", "config-2", "-J", "-r", "-l",
                                  "-ldots", "-allow-lowercase", "-allow-multidot", "--", folder},
                                 kProgramMs),
            "make the config drive");
  TRY(remove_tree(folder));
  if (::chmod(temporary.c_str(), 0600) != 0) return sys_fail("set the mode of " + quote(temporary));
  if (::rename(temporary.c_str(), drive.c_str()) != 0) return sys_fail("rename " + quote(temporary));
  return {};
}

Result<void> Machines::remove_rescue(const Instance& instance) const {
  return MachineDisk::rescue(instance.folder).remove();
}

Guests::DumpStyle Machines::dump_style() const { return {VIR_DUMP_LIVE | VIR_DUMP_MEMORY_ONLY, ".core", true}; }

// Of one that is paused qemu has written everything; it holds the file still (-U).
Result<Packed> Machines::pack(const Instance& instance, const Fd& output, const Fd& stop) const {
  TRY(run_packing({"qemu-img", "convert", "-q", "-U", "-f", "qcow2", "-O", "qcow2",
                   MachineDisk::own(instance.folder).image(), "/proc/self/fd/1"},
                  output, stop),
      "pack the instance's disk");
  struct stat found {};
  if (::fstat(output.get(), &found) != 0) return sys_fail("look at the snapshot");
  return Packed{"qcow2", static_cast<std::uint64_t>(found.st_size)};
}

Result<std::vector<DiskCounters>> Machines::disk_counters(const Instance& instance) const {
  std::vector<DiskCounters> found;
  if (!instance.record.image) return found;
  const auto device = device_of_own_disk(instance.record);
  const auto counters =
      hypervisor_.run_on(instance.record.spec.uuid, [&](client::Domain domain) -> Result<DiskCounters> {
        virDomainBlockStatsStruct stats{};
        if (::virDomainBlockStats(domain.get(), device.c_str(), &stats, sizeof stats) != 0)
          return client::last_error("ask for the counters of the disk");
        const auto number = [](long long value) { return static_cast<std::uint64_t>(std::max(value, 0LL)); };
        return DiskCounters{number(stats.rd_bytes), number(stats.rd_req), number(stats.wr_bytes),
                            number(stats.wr_req)};
      });
  // Of one that is off there are none.
  if (counters) found.push_back(*counters);
  return found;
}

}  // namespace virtuserns::compute
