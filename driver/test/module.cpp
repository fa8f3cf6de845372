// The plug: what the daemon finds in virtuserns-driver-test.so.
#include "driver/test/driver.h"

namespace virtuserns::test_driver {
namespace {

Result<std::unique_ptr<Driver>> create(const DriverHost& host) {
  if (!host.events) return fail(VIR_ERR_INTERNAL_ERROR, "test driver: no event hub");
  return std::unique_ptr<Driver>(std::make_unique<TestDriver>(*host.events));
}

constexpr DriverModule kModule{kDriverInterfaceVersion, "test", &create};

}  // namespace
}  // namespace virtuserns::test_driver

extern "C" __attribute__((visibility("default"))) const virtuserns::DriverModule* virtuserns_driver_module() {
  return &virtuserns::test_driver::kModule;
}
