// What depends on the kind of guests that a hypervisor runs: their disks, their images, their definitions. Compute is the same for all.
//
// One class for each kind, chosen by the scheme of the connection's URI. What a kind has none of is in refusals(): by that requests are
// refused, with the reason, before anything is done, and host.describe tells it beforehand. So a function of an instance that
// belongs to a feature is called only where that is offered.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/fd.h"
#include "driver/compute/bases.h"
#include "driver/compute/instance_disk.h"
#include "driver/compute/json.h"
#include "driver/compute/record.h"
#include "driver/compute/settings.h"

namespace virtuserns::compute {

class Hypervisor;

// What host.describe names.
inline constexpr std::string_view kFeatures[] = {
    "attach_interface", "attach_volume", "config_drive",   "console_output", "crash_dump",
    "extend_volume",    "files",         "images",         "migrate",        "quiesce",
    "rescue",           "resize",        "serial_console", "set_password",   "snapshot",
    "suspend",          "swap_volume"};

struct Refusal {
  std::string_view feature, reason;
};

// An instance as its journal says, and where its files are.
struct Instance {
  const Record& record;
  const std::string& folder;
};

struct DiskCounters {
  std::uint64_t read_bytes = 0, read_requests = 0, write_bytes = 0, write_requests = 0;
};

struct Packed {
  std::string_view format;
  std::uint64_t bytes = 0;
};

class Guests {
 public:
  virtual ~Guests() = default;

  [[nodiscard]] virtual std::string_view kind() const = 0;  // of host.describe
  [[nodiscard]] virtual std::span<const Refusal> refusals() const = 0;
  // VIR_ERR_OPERATION_UNSUPPORTED with the reason. An empty name is offered by all.
  [[nodiscard]] Result<void> check(std::string_view feature) const;
  [[nodiscard]] virtual std::vector<std::string_view> image_formats() const = 0;
  // What Placement is told beside processors, memory and disk.
  [[nodiscard]] virtual Result<Json> inventory() const;
  [[nodiscard]] virtual Result<std::vector<std::string>> traits() const;

  // Of the folders on the way to what the hypervisor's own user opens.
  [[nodiscard]] virtual mode_t folder_mode() const { return 0700; }
  // Images. find_image: kImageMissing; kImageTooLarge: it has more bytes than that; 0: any.
  [[nodiscard]] virtual Result<void> find_image(const std::string& key, std::uint64_t limit_bytes) const = 0;
  [[nodiscard]] virtual Result<void> hold_image(const std::string& key, const std::string& uuid) const = 0;

  [[nodiscard]] virtual std::unique_ptr<InstanceDisk> disk(const std::string& folder) const = 0;
  // There, of this size if it is made now, and ready for use; nothing when it is already. Undone by InstanceDisk::remove().
  [[nodiscard]] virtual Result<void> make_disk(const Instance& instance, std::uint64_t bytes) const = 0;
  // What is done last before an instance that is off is started.
  [[nodiscard]] virtual Result<void> check_start(const Instance& instance) const;
  // The domain as libvirt's XML. VIR_ERR_INVALID_ARG: an extra spec makes no sense.
  [[nodiscard]] virtual Result<std::string> definition(const Instance& instance) const = 0;
  [[nodiscard]] virtual Result<std::string> interface_xml(const Vif& vif) const = 0;
  [[nodiscard]] virtual std::string volume_xml(const VolumeRef& volume) const = 0;
  // Those that the hypervisor chose; nullopt: it chooses none.
  [[nodiscard]] virtual Result<std::optional<IdRange>> read_ids(const std::string& domain_xml) const;

  // Into what it boots from (the rescue image while it is rescued), while it is off and its disk is there. A password that it cannot
  // have is no error, as in clouds.
  [[nodiscard]] virtual Result<void> write_files(const Instance& instance, const std::vector<FileToWrite>& files,
                                                 const std::string& root_password) const;
  [[nodiscard]] virtual Result<void> set_password(const Instance& instance, const std::string& user,
                                                  const std::string& password) const;
  [[nodiscard]] virtual Result<void> write_config_drive(const Instance& instance,
                                                        const std::vector<FileToWrite>& files) const;
  [[nodiscard]] virtual Result<void> remove_rescue(const Instance& instance) const;
  // How a dump is asked for (virDomainCoreDumpFlags): the instance runs on. And how such files end.
  struct DumpStyle {
    unsigned flags = 0;
    std::string_view suffix;
    bool has_memory = false;  // all of the instance's
  };
  [[nodiscard]] virtual DumpStyle dump_style() const { return {}; }
  // To a file of the caller's, until `stop` can be read (packing.h); the instance does not run meanwhile, and its disk is mounted.
  [[nodiscard]] virtual Result<Packed> pack(const Instance& instance, const Fd& output, const Fd& stop) const;
  [[nodiscard]] virtual Result<std::vector<DiskCounters>> disk_counters(const Instance& instance) const;
};

// Those whose images are in the cache.
class GuestsOfImages : public Guests {
 public:
  [[nodiscard]] Result<void> find_image(const std::string& key, std::uint64_t limit_bytes) const override;
  [[nodiscard]] Result<void> hold_image(const std::string& key, const std::string& uuid) const override;

 protected:
  explicit GuestsOfImages(const Bases& bases) : bases_(bases) {}
  const Bases& bases_;
};

// "userns+unix:///system" -> "userns".
[[nodiscard]] std::string_view scheme_of(std::string_view uri);
// Its images are kept as disks, and not as files (StoreOptions::is_whole).
[[nodiscard]] bool wants_whole_images(const Settings& settings);
// By the scheme of settings.connect. VIR_ERR_CONF_SYNTAX: it is none that this program has guests for.
[[nodiscard]] Result<std::unique_ptr<Guests>> make_guests(const Settings& settings, const Bases& bases,
                                                          Hypervisor& hypervisor);

}  // namespace virtuserns::compute
