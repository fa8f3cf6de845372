// Instances that are machines (qemu): a disk over the image's (machine_disk.h). What only an agent inside could do is refused.
#pragma once

#include "driver/compute/guests.h"
#include "driver/compute/machine_disk.h"

namespace virtuserns::compute {

class Machines : public GuestsOfImages {
 public:
  Machines(const Bases& bases, Hypervisor& hypervisor) : GuestsOfImages(bases), hypervisor_(hypervisor) {}

  [[nodiscard]] std::string_view kind() const override { return "machine"; }
  [[nodiscard]] std::span<const Refusal> refusals() const override;
  [[nodiscard]] std::vector<std::string_view> image_formats() const override;
  [[nodiscard]] Result<std::vector<std::string>> traits() const override;
  [[nodiscard]] mode_t folder_mode() const override { return 0711; }
  [[nodiscard]] std::unique_ptr<InstanceDisk> disk(const std::string& folder) const override;
  [[nodiscard]] Result<void> make_disk(const Instance& instance, std::uint64_t bytes) const override;
  [[nodiscard]] Result<std::string> definition(const Instance& instance) const override;
  [[nodiscard]] Result<std::string> interface_xml(const Vif& vif) const override;
  [[nodiscard]] std::string volume_xml(const VolumeRef& volume) const override;
  [[nodiscard]] Result<void> write_config_drive(const Instance& instance,
                                                const std::vector<FileToWrite>& files) const override;
  [[nodiscard]] Result<void> remove_rescue(const Instance& instance) const override;
  [[nodiscard]] DumpStyle dump_style() const override;
  [[nodiscard]] Result<Packed> pack(const Instance& instance, const Fd& output, const Fd& stop) const override;
  [[nodiscard]] Result<std::vector<DiskCounters>> disk_counters(const Instance& instance) const override;

 private:
  Hypervisor& hypervisor_;
};

}  // namespace virtuserns::compute
