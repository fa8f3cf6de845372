// An instance gets another flavor.
#include "conf/base/undo.h"
#include "driver/compute/compute.h"

namespace virtuserns::compute {

Result<void> Compute::resize(const std::string& uuid, const Flavor& flavor) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  if (record.spec.flavor == flavor) return {};
  if (TRY(hypervisor_.facts(uuid)).state != PowerState::kShutdown)
    return fail(VIR_ERR_OPERATION_INVALID, "the instance cannot be resized while it runs: power it off first");
  // The larger disk first: a journal that promises more than there is would be worse than one that promises less.
  if (const auto& disk = held.disk(); disk.exists()) TRY(disk.grow(disk_bytes(flavor)));
  record.spec.flavor = flavor;
  TRY(save(held, std::move(record)));
  const bool is_mounted = TRY(held.disk().is_mounted());
  TRY(prepare(held));
  return is_mounted ? Result<void>() : held.disk().unmount();
}

}  // namespace virtuserns::compute
