// The plug: what the daemon finds in virtuserns-driver-userns.so.
#include "driver/userns/backend.h"

namespace virtuserns::userns {
namespace {

Result<std::unique_ptr<Driver>> create(const DriverHost& host) {
  if (!host.config || !host.paths || !host.events)
    return fail(VIR_ERR_INTERNAL_ERROR, "userns driver: the daemon lends too little");
  return std::unique_ptr<Driver>(std::make_unique<Backend>(*host.config, *host.paths, *host.events));
}

constexpr DriverModule kModule{kDriverInterfaceVersion, "userns", &create};

}  // namespace
}  // namespace virtuserns::userns

extern "C" __attribute__((visibility("default"))) const virtuserns::DriverModule* virtuserns_driver_module() {
  return &virtuserns::userns::kModule;
}
