// Loading of driver modules.
#pragma once

#include <memory>
#include <string>

#include "driver/driver.h"

namespace virtuserns {

// Loads the module that serves `scheme` from `directory` (virtuserns-driver-<scheme>.so or lib<scheme>.so), checks
// its interface version and name, and creates its driver. The shared object stays loaded for the life of the process:
// code of it may run until the very end (destructors of threads, of static objects).
[[nodiscard]] Result<std::unique_ptr<Driver>> load_driver(const std::string& directory, const std::string& scheme,
                                                          const DriverHost& host);

}  // namespace virtuserns
