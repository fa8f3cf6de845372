// Instances that are data: domains of a test driver, ours (driver/test) or libvirt's own. A scheduler can be tried with them: they have a
// life, devices and events, and nothing that would need an image, a disk or a privilege.
#pragma once

#include "driver/compute/guests.h"

namespace virtuserns::compute {

class DataGuests : public Guests {
 public:
  explicit DataGuests(Hypervisor& hypervisor) : hypervisor_(hypervisor) {}

  [[nodiscard]] std::string_view kind() const override { return "data"; }
  [[nodiscard]] std::span<const Refusal> refusals() const override;
  [[nodiscard]] std::vector<std::string_view> image_formats() const override { return {}; }
  // None is needed: whatever an instance is said to be made of is there.
  [[nodiscard]] Result<void> find_image(const std::string&, std::uint64_t) const override { return {}; }
  [[nodiscard]] Result<void> hold_image(const std::string&, const std::string&) const override { return {}; }
  [[nodiscard]] std::unique_ptr<InstanceDisk> disk(const std::string& folder) const override;
  [[nodiscard]] Result<void> make_disk(const Instance&, std::uint64_t) const override { return {}; }
  [[nodiscard]] Result<std::string> definition(const Instance& instance) const override;
  [[nodiscard]] Result<std::string> interface_xml(const Vif& vif) const override;
  [[nodiscard]] std::string volume_xml(const VolumeRef& volume) const override;

 private:
  Hypervisor& hypervisor_;
};

}  // namespace virtuserns::compute
