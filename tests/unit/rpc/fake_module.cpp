// The FakeDriver as a module: `virtusernsd --driver fake`, for tests that need a whole daemon and no domain.
#include "tests/support/fake_driver.h"

namespace {

using namespace virtuserns;

Result<std::unique_ptr<Driver>> create(const DriverHost& host) {
  return std::unique_ptr<Driver>(new test::FakeDriver(host.events));
}

constexpr DriverModule kModule{kDriverInterfaceVersion, "fake", &create};

}  // namespace

extern "C" const virtuserns::DriverModule* virtuserns_driver_module();
extern "C" const virtuserns::DriverModule* virtuserns_driver_module() { return &kModule; }
