// What a scheduler says of an instance: docs/compute-api.md, "Structures", as plain data and back.
//
// Pure. Everything is bounded and checked here, so that what is built from it (domain XML, names of files) may rely on it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "driver/compute/json.h"

namespace virtuserns::compute {

struct IdRange {
  std::uint32_t first = 0, count = 0;
  bool operator==(const IdRange&) const = default;
};

struct Flavor {
  std::uint32_t vcpus = 1;
  std::uint64_t memory_mb = 0;
  std::uint64_t root_gb = 0, ephemeral_gb = 0, swap_mb = 0;  // root_gb 0: as much as the configuration says
  std::map<std::string, std::string> extra_specs;
  bool operator==(const Flavor&) const = default;
};

struct InstanceSpec {
  std::string uuid;  // lower case, 8-4-4-4-12
  std::string name;  // of the domain
  std::string hostname, project, user, display_name;
  Flavor flavor;
  std::map<std::string, std::string> image_properties;
  std::optional<IdRange> ids;
  bool operator==(const InstanceSpec&) const = default;
};

struct ImageRef {
  std::string key, format;
  bool operator==(const ImageRef&) const = default;
};

struct VifAddress {
  std::string address;
  std::uint32_t prefix = 0;
  bool operator==(const VifAddress&) const = default;
};
struct VifRoute {
  std::string to;  // "10.0.0.0/8"
  std::string via;
  bool operator==(const VifRoute&) const = default;
};
// Of a link that is a port of Open vSwitch: the name of its end on the host is what makes it that port. Any other is a bridge's.
inline constexpr std::string_view kOpenVSwitch = "ovs";
struct Vif {
  std::string id, mac, type, bridge, device;
  std::uint32_t mtu = 0;  // 0: the bridge's
  std::vector<VifAddress> ips;
  std::vector<VifRoute> routes;
  std::vector<std::string> dns;
  bool operator==(const Vif&) const = default;
};

struct VolumeRef {
  std::string device;  // "/dev/vdb"
  std::string path, serial;
  bool is_readonly = false, is_root = false;
  bool is_shared = false;  // with other instances that say so too
  bool operator==(const VolumeRef&) const = default;
};

struct FileToWrite {
  std::string path, content;
  std::uint32_t mode = 0644;
  bool operator==(const FileToWrite&) const = default;
};

inline constexpr std::size_t kMaxVifs = 64, kMaxVolumes = 64, kMaxFiles = 512;
inline constexpr std::size_t kMaxFileContent = 4 * 1024 * 1024;
inline constexpr std::uint64_t kMaxMemoryMb = std::uint64_t{1} << 32, kMaxDiskGb = 1 << 20;

// The member `key` of `params`. VIR_ERR_INVALID_ARG.
[[nodiscard]] Result<std::string> read_uuid(const Object& params, std::string_view key = "uuid");
// The member "ids".
[[nodiscard]] Result<std::optional<IdRange>> read_ids(const Object& object);
[[nodiscard]] Result<Flavor> read_flavor(const Object& flavor);
[[nodiscard]] Result<InstanceSpec> read_instance(const Object& instance);
[[nodiscard]] Result<std::optional<ImageRef>> read_image(const Object& params, std::string_view key = "image");
[[nodiscard]] Result<ImageRef> read_image_ref(const Object& image);
[[nodiscard]] Result<Vif> read_vif(const Object& vif);
[[nodiscard]] Result<std::vector<Vif>> read_network(const Object& params, std::string_view key = "network");
[[nodiscard]] Result<VolumeRef> read_volume(const Object& volume);
// Of one that the instance has: by its serial, or its path; `device` may be empty.
[[nodiscard]] Result<VolumeRef> read_known_volume(const Object& volume);
[[nodiscard]] Result<std::vector<VolumeRef>> read_volumes(const Object& params, std::string_view key = "volumes");
[[nodiscard]] Result<std::vector<FileToWrite>> read_files(const Object& params, std::string_view key);

[[nodiscard]] Json to_json(const IdRange& ids);
[[nodiscard]] Json to_json(const InstanceSpec& spec);
[[nodiscard]] Json to_json(const ImageRef& image);
[[nodiscard]] Json to_json(const std::vector<Vif>& network);
[[nodiscard]] Json to_json(const VolumeRef& volume);
[[nodiscard]] Json to_json(const std::vector<VolumeRef>& volumes);

}  // namespace virtuserns::compute
