// Instances that are containers (userns): an image's tree below, a file system of their own above (disk.h, decision 0025).
#pragma once

#include "driver/compute/disk.h"
#include "driver/compute/domain_xml.h"
#include "driver/compute/guests.h"
#include "driver/compute/spares.h"

namespace virtuserns::compute {

class Containers : public GuestsOfImages {
 public:
  Containers(const Settings& settings, const Bases& bases, std::unique_ptr<Spares> spares)
      : GuestsOfImages(bases), settings_(settings), spares_(std::move(spares)) {}

  [[nodiscard]] std::string_view kind() const override { return "container"; }
  [[nodiscard]] std::span<const Refusal> refusals() const override { return {}; }
  [[nodiscard]] std::vector<std::string_view> image_formats() const override;
  [[nodiscard]] Result<Json> inventory() const override;
  [[nodiscard]] Result<std::vector<std::string>> traits() const override;
  [[nodiscard]] std::unique_ptr<InstanceDisk> disk(const std::string& folder) const override;
  [[nodiscard]] Result<void> make_disk(const Instance& instance, std::uint64_t bytes) const override;
  [[nodiscard]] Result<void> check_start(const Instance& instance) const override;
  [[nodiscard]] Result<std::string> definition(const Instance& instance) const override;
  [[nodiscard]] Result<std::string> interface_xml(const Vif& vif) const override { return make_interface_xml(vif); }
  [[nodiscard]] std::string volume_xml(const VolumeRef& volume) const override { return make_disk_xml(volume); }
  [[nodiscard]] Result<std::optional<IdRange>> read_ids(const std::string& domain_xml) const override;
  [[nodiscard]] Result<void> write_files(const Instance& instance, const std::vector<FileToWrite>& files,
                                         const std::string& root_password) const override;
  [[nodiscard]] Result<void> set_password(const Instance& instance, const std::string& user,
                                          const std::string& password) const override;
  [[nodiscard]] Result<void> write_config_drive(const Instance& instance,
                                                const std::vector<FileToWrite>& files) const override;
  [[nodiscard]] Result<void> remove_rescue(const Instance& instance) const override;
  [[nodiscard]] DumpStyle dump_style() const override;
  [[nodiscard]] Result<Packed> pack(const Instance& instance, const Fd& output, const Fd& stop) const override;
  [[nodiscard]] Result<std::vector<DiskCounters>> disk_counters(const Instance& instance) const override;

 private:
  [[nodiscard]] Result<Places> places_of(const Instance& instance) const;

  const Settings& settings_;
  const std::unique_ptr<Spares> spares_;
};

}  // namespace virtuserns::compute
