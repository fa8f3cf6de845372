// Of the API itself, and of the host.
#include "driver/compute/handlers.h"
#include "virtuserns_build.h"

namespace virtuserns::compute {
namespace {

Result<Json> api_version(const Call&) {
  return Json{{"version", std::string(kApiVersion)}, {"program", "virtuserns-compute " VIRTUSERNS_VERSION}};
}

Result<Json> host_describe(const Call& call) { return call.service.host.describe(); }
Result<Json> host_resources(const Call& call) { return call.service.host.resources(); }
Result<Json> host_inventory(const Call& call) { return call.service.host.inventory(); }
Result<Json> host_uptime(const Call& call) { return call.service.host.uptime(); }
Result<Json> host_cpu_stats(const Call& call) { return call.service.host.cpu_stats(); }

Result<Json> events_subscribe(const Call&) { return nothing(); }

}  // namespace

std::span<const Method> host_methods() {
  static const std::vector<Method> all = {
      {"api.version", api_version, {}},           {"host.describe", host_describe, {}},
      {"host.resources", host_resources, {}},     {"host.inventory", host_inventory, {}},
      {"host.uptime", host_uptime, {}},           {"host.cpu_stats", host_cpu_stats, {}},
      {"events.subscribe", events_subscribe, {}},
  };
  return all;
}

}  // namespace virtuserns::compute
