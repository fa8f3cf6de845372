#include "driver/module.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/text.h"

namespace virtuserns {
namespace {

bool is_module_name(const std::string& scheme) {
  return !scheme.empty() && std::all_of(scheme.begin(), scheme.end(),
                                        [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

}  // namespace

Result<std::unique_ptr<Driver>> load_driver(const std::string& directory, const std::string& scheme,
                                            const DriverHost& host) {
  if (!is_module_name(scheme))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "driver name " + quote(scheme) + " is not valid");
  std::string path = directory + "/virtuserns-driver-" + scheme + ".so";
  if (::access(path.c_str(), F_OK) != 0) {
    const std::string other = directory + "/lib" + scheme + ".so";
    if (::access(other.c_str(), F_OK) == 0) path = other;
  }
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (module == nullptr)
    return fail(VIR_ERR_INTERNAL_ERROR, "load driver " + quote(scheme) + ": " + printable(::dlerror(), 1024));
  const auto symbol = reinterpret_cast<DriverModuleSymbol>(::dlsym(module, kDriverModuleSymbol));
  if (symbol == nullptr) return fail(VIR_ERR_INTERNAL_ERROR, quote(path) + " is not a driver module");
  const DriverModule* found = symbol();
  if (found->interface_version != kDriverInterfaceVersion)
    return fail(VIR_ERR_INTERNAL_ERROR, quote(path) + " is for interface version " +
                                            std::to_string(found->interface_version) + ", this daemon has " +
                                            std::to_string(kDriverInterfaceVersion));
  if (scheme != found->scheme)
    return fail(VIR_ERR_INTERNAL_ERROR, quote(path) + " serves another scheme: " + quote(found->scheme));
  return found->create(host);
}

}  // namespace virtuserns
