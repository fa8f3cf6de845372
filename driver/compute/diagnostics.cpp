// What an instance uses, and how it is told what it cannot be told from outside.
#include <vector>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/compute/compute.h"
#include "driver/compute/tree.h"

namespace virtuserns::compute {
namespace {

using client::last_error;

constexpr std::uint64_t kSectorBytes = 512;

// Of /sys/block/loop3/stat (Documentation/block/stat.rst).
Result<DiskCounters> read_counters(const std::string& device) {
  const auto text = TRY(read_kernel_file("/sys/block/" + device.substr(device.rfind('/') + 1) + "/stat"));
  std::vector<std::uint64_t> fields;
  for (const auto field : split_blanks(text)) fields.push_back(parse_number<std::uint64_t>(field).value_or(0));
  if (fields.size() < 7)
    return fail(VIR_ERR_INTERNAL_ERROR, "the counters of " + quote(device) + " are not as they should be");
  return DiskCounters{fields[2] * kSectorBytes, fields[0], fields[6] * kSectorBytes, fields[4]};
}

}  // namespace

Result<Diagnostics> Compute::diagnostics(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  const auto& record = *held.record();
  Diagnostics found;
  found.facts = TRY(info(uuid));
  found.has_config_drive = record.has_config_drive;
  const auto device = TRY(held.disk().device());
  if (!device.empty()) found.disks.push_back(TRY(read_counters(device)));
  for (const auto& vif : record.network) {
    // Of one that is off there are none.
    auto stats = hypervisor_.run_on(uuid, [&](client::Domain domain) -> Result<virDomainInterfaceStatsStruct> {
      virDomainInterfaceStatsStruct counters{};
      if (::virDomainInterfaceStats(domain.get(), vif.device.c_str(), &counters, sizeof counters) != 0)
        return last_error("ask for the counters of an interface");
      return counters;
    });
    found.nics.push_back({vif.mac, stats ? std::optional(*stats) : std::nullopt});
  }
  return found;
}

Result<void> Compute::set_password(const std::string& uuid, const std::string& user, const std::string& password) {
  auto held = TRY(hold_ready(uuid));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (state != PowerState::kShutdown && state != PowerState::kCrashed)
    return hypervisor_.run_on(uuid, [&](client::Domain domain) -> Result<void> {
      if (::virDomainSetUserPassword(domain.get(), user.c_str(), password.c_str(), 0) != 0)
        return last_error("set the password");
      return {};
    });
  const auto& record = *held.record();
  if (!record.image)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the root of the instance is a volume: start it to set a password");
  const auto base = TRY(images_.find(record.image->key));
  TRY(held.disk().mount());
  auto set = [&]() -> Result<void> {
    const auto tree = TRY(open_tree_of(held.disk().root(), base), "open the files of the instance");
    return set_password_in(tree, user, password);
  }();
  TRY(held.disk().unmount());
  return set;
}

// What is written in the instance from now on waits; what was written is on its disk.
Result<void> Compute::quiesce(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  if (!TRY(held.disk().is_mounted()))
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the instance has no disk of its own in use");
  return held.disk().freeze();
}

Result<void> Compute::unquiesce(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  return held.disk().thaw();
}

}  // namespace virtuserns::compute
