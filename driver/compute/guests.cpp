#include "driver/compute/guests.h"

#include "conf/base/text.h"
#include "driver/compute/containers.h"
#include "driver/compute/data_guests.h"
#include "driver/compute/machines.h"

namespace virtuserns::compute {
namespace {

Error not_offered(std::string_view feature) {
  return fail(VIR_ERR_OPERATION_UNSUPPORTED, "these guests have no " + std::string(feature));
}

}  // namespace

std::string_view scheme_of(std::string_view uri) { return uri.substr(0, uri.find_first_of("+:")); }

bool wants_whole_images(const Settings& settings) { return scheme_of(settings.connect) == "qemu"; }

Result<void> Guests::check(std::string_view feature) const {
  for (const auto& refusal : refusals())
    if (refusal.feature == feature) return fail(VIR_ERR_OPERATION_UNSUPPORTED, std::string(refusal.reason));
  return {};
}

Result<void> Guests::check_start(const Instance&) const { return {}; }
Result<Json> Guests::inventory() const { return Json::object(); }
Result<std::vector<std::string>> Guests::traits() const { return std::vector<std::string>(); }
Result<std::optional<IdRange>> Guests::read_ids(const std::string&) const { return std::optional<IdRange>(); }
Result<std::vector<DiskCounters>> Guests::disk_counters(const Instance&) const { return std::vector<DiskCounters>(); }

Result<void> Guests::write_files(const Instance&, const std::vector<FileToWrite>& files, const std::string&) const {
  return files.empty() ? Result<void>() : not_offered("files");
}
Result<void> Guests::set_password(const Instance&, const std::string&, const std::string&) const {
  return not_offered("set_password");
}
Result<void> Guests::write_config_drive(const Instance&, const std::vector<FileToWrite>&) const {
  return not_offered("config_drive");
}
Result<void> Guests::remove_rescue(const Instance&) const { return not_offered("rescue"); }
Result<Packed> Guests::pack(const Instance&, const Fd&, const Fd&) const { return not_offered("snapshot"); }

Result<void> GuestsOfImages::find_image(const std::string& key, std::uint64_t limit_bytes) const {
  (void)TRY(bases_.find(key, limit_bytes));
  return {};
}
Result<void> GuestsOfImages::hold_image(const std::string& key, const std::string& uuid) const {
  return bases_.hold(key, uuid);
}

Result<std::unique_ptr<Guests>> make_guests(const Settings& settings, const Bases& bases, Hypervisor& hypervisor) {
  const auto scheme = scheme_of(settings.connect);
  if (scheme == "userns")
    return std::unique_ptr<Guests>(
        std::make_unique<Containers>(settings, bases, TRY(Spares::open(settings.state + "/spares"))));
  if (scheme == "test") return std::unique_ptr<Guests>(std::make_unique<DataGuests>(hypervisor));
  if (scheme == "qemu") return std::unique_ptr<Guests>(std::make_unique<Machines>(bases, hypervisor));
  return fail(VIR_ERR_CONF_SYNTAX,
              "connect = " + quote(settings.connect) +
                  ": instances can be made by userns (containers), qemu (machines) and test (data) only");
}

}  // namespace virtuserns::compute
