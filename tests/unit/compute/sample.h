// An instance in the words of docs/compute-api.md, for tests to change.
#pragma once

#include "driver/compute/json.h"

namespace virtuserns::compute::test {

inline constexpr const char* kUuid = "4c1b9a52-7e7c-4f6e-9d35-0d1f7a3f2b60";

inline Json sample_instance() {
  return Json::parse(
      R"({"uuid": "4C1B9A52-7E7C-4F6E-9D35-0D1F7A3F2B60", "name": "instance-00000001", "hostname": "web",
    "project": "p", "user": "u", "display_name": "Web & <Co>",
    "flavor": {"vcpus": 2, "memory_mb": 512, "root_gb": 3, "ephemeral_gb": 0, "swap_mb": 0, "extra_specs": {"quota:cpu_shares": "512"}},
    "image_properties": {"userns_init": "/bin/init"}, "ids": {"first": 1000000, "count": 65536}})");
}

inline Json sample_vif() {
  return Json::parse(
      R"({"id": "port", "mac": "fa:16:3e:00:00:01", "type": "bridge", "bridge": "brq-1", "device": "tap-1", "mtu": 1450,
    "active": true, "ips": [{"address": "10.0.0.5", "prefix": 24}, {"address": "2001:db8::5", "prefix": 64}],
    "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "::/0", "via": "2001:db8::1"}], "dns": ["10.0.0.2"]})");
}

inline Json sample_volume() {
  return Json::parse(
      R"({"device": "/dev/vdb", "path": "/dev/sdb", "readonly": false, "boot_index": null, "serial": "s-1"})");
}

}  // namespace virtuserns::compute::test
