#include "driver/compute/model.h"

#include <arpa/inet.h>

#include <algorithm>

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

Error invalid(const std::string& text) { return fail(VIR_ERR_INVALID_ARG, text); }

bool has_only(std::string_view text, std::string_view others) {
  return std::all_of(text.begin(), text.end(), [&](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           others.find(static_cast<char>(c)) != std::string_view::npos;
  });
}

// 1 to `most` characters of letters, digits and `others`; and neither "." nor "..".
Result<std::string> read_word(const Object& object, std::string_view key, std::size_t most, std::string_view others) {
  auto value = TRY(object.text(key, most));
  if (value.empty() || !has_only(value, others) || value == "." || value == "..")
    return invalid(object.path() + "." + std::string(key) + ": needs 1 to " + std::to_string(most) +
                   " letters, digits and '" + std::string(others) + "'");
  return value;
}

Result<std::string> read_path(const Object& object, std::string_view key, bool is_absolute) {
  auto path = TRY(object.text(key));
  const bool is_bad = path.empty() || path.starts_with('/') != is_absolute ||
                      std::any_of(path.begin(), path.end(), [](unsigned char c) { return c < ' ' || c == 127; });
  if (is_bad)
    return invalid(object.path() + "." + std::string(key) + ": needs " +
                   (is_absolute ? "an absolute" : "a relative") + " path without control characters");
  for (const auto part : split(path, '/'))
    if (part == "..") return invalid(object.path() + "." + std::string(key) + ": must not have '..' in it");
  return path;
}

Result<std::map<std::string, std::string>> read_settings(const Object& object, std::string_view key) {
  std::map<std::string, std::string> all;
  for (auto& [name, value] : TRY(object.settings(key, 256))) all.emplace(std::move(name), std::move(value));
  return all;
}

bool is_address(const std::string& text) {
  unsigned char buffer[sizeof(in6_addr)];
  return ::inet_pton(AF_INET, text.c_str(), buffer) == 1 || ::inet_pton(AF_INET6, text.c_str(), buffer) == 1;
}

Result<std::string> read_address(const Object& object, std::string_view key) {
  auto address = TRY(object.text(key, 64));
  if (!is_address(address))
    return invalid(object.path() + "." + std::string(key) + ": needs an IPv4 or IPv6 address");
  return address;
}

Result<void> check_network(const Object& route, const std::string& network) {
  const auto parts = split(network, '/');
  if (parts.size() == 2 && is_address(std::string(parts[0]))) {
    const auto prefix = parse_number<unsigned>(parts[1]);
    if (prefix && *prefix <= (parts[0].find(':') == std::string_view::npos ? 32u : 128u)) return {};
  }
  return invalid(route.path() + ".to: needs a network, such as 10.0.0.0/8");
}

Json to_json(const std::map<std::string, std::string>& settings) {
  Json json = Json::object();
  for (const auto& [name, value] : settings) json[name] = value;
  return json;
}

}  // namespace

Result<std::string> read_uuid(const Object& params, std::string_view key) {
  const auto uuid = parse_uuid(TRY(params.text(key, 64)));
  if (!uuid || !is_valid_uuid(*uuid)) return invalid(params.path() + "." + std::string(key) + ": needs a uuid");
  return format_uuid(*uuid);
}

Result<Flavor> read_flavor(const Object& object) {
  Flavor flavor;
  flavor.vcpus = static_cast<std::uint32_t>(TRY(object.number("vcpus", 1, 16384)));
  flavor.memory_mb = TRY(object.number("memory_mb", 1, kMaxMemoryMb));
  flavor.root_gb = TRY(object.number_or("root_gb", 0, 0, kMaxDiskGb));
  flavor.ephemeral_gb = TRY(object.number_or("ephemeral_gb", 0, 0, kMaxDiskGb));
  flavor.swap_mb = TRY(object.number_or("swap_mb", 0, 0, kMaxMemoryMb));
  flavor.extra_specs = TRY(read_settings(object, "extra_specs"));
  return flavor;
}

Result<std::optional<IdRange>> read_ids(const Object& object) {
  const auto ids = TRY(object.object_or_none("ids"));
  if (!ids) return std::optional<IdRange>();
  const auto count = TRY(ids->number("count", 1, 4294967295));
  const auto first = TRY(ids->number("first", 1, 4294967295 - count));
  return std::optional(IdRange{static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(count)});
}

Result<InstanceSpec> read_instance(const Object& object) {
  InstanceSpec spec;
  spec.uuid = TRY(read_uuid(object));
  spec.name = TRY(read_word(object, "name", 64, "_.-"));
  spec.hostname = TRY(object.text_or("hostname", "", 255));
  spec.project = TRY(object.text_or("project", "", 255));
  spec.user = TRY(object.text_or("user", "", 255));
  spec.display_name = TRY(object.text_or("display_name", "", 255));
  spec.flavor = TRY(read_flavor(TRY(object.object("flavor"))));
  spec.image_properties = TRY(read_settings(object, "image_properties"));
  spec.ids = TRY(read_ids(object));
  return spec;
}

Result<ImageRef> read_image_ref(const Object& object) {
  // Member by member: what stands in braces before a TRY would be lost when that returns (a fault of the compilers).
  ImageRef image;
  image.key = TRY(read_word(object, "key", 200, "_-"));
  image.format = TRY(object.text("format", 32));
  static constexpr std::string_view kFormats[] = {"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "root-tar"};
  if (std::find(std::begin(kFormats), std::end(kFormats), image.format) == std::end(kFormats))
    return fail(kImageRefused,
                object.path() + ".format: " + quote(image.format) +
                    " is no image of a root file system: raw, qcow2, vmdk, vdi, vhd, vhdx and root-tar are");
  return image;
}

Result<std::optional<ImageRef>> read_image(const Object& params, std::string_view key) {
  const auto object = TRY(params.object_or_none(key));
  if (!object) return std::optional<ImageRef>();
  return std::optional(TRY(read_image_ref(*object)));
}

Result<Vif> read_vif(const Object& object) {
  Vif vif;
  vif.id = TRY(object.text_or("id", "", 64));
  vif.mac = TRY(object.text("mac", 17));
  if (vif.mac.size() != 17 || !has_only(vif.mac, ":")) return invalid(object.path() + ".mac: needs a MAC address");
  vif.type = TRY(object.text_or("type", "bridge", 32));
  if (vif.type != "bridge" && vif.type != kOpenVSwitch)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, object.path() + ".type: links of type " + quote(vif.type) +
                                                   " cannot be made: bridge and ovs are possible");
  if (vif.type == "bridge" || object.has("bridge")) vif.bridge = TRY(read_word(object, "bridge", 15, "_.-"));
  // Open vSwitch knows its port by this name.
  if (vif.type == kOpenVSwitch || object.has("device")) vif.device = TRY(read_word(object, "device", 15, "_.-"));
  vif.mtu = static_cast<std::uint32_t>(TRY(object.number_or("mtu", 0, 68, 65535)));
  for (const auto& ip : TRY(object.objects("ips", 64))) {
    VifAddress address{TRY(read_address(ip, "address")), 0};
    address.prefix = static_cast<std::uint32_t>(
        TRY(ip.number("prefix", 0, address.address.find(':') == std::string::npos ? 32 : 128)));
    vif.ips.push_back(std::move(address));
  }
  for (const auto& item : TRY(object.objects("routes", 64))) {
    VifRoute route;
    route.to = TRY(item.text("to", 64));
    route.via = TRY(read_address(item, "via"));
    TRY(check_network(item, route.to));
    vif.routes.push_back(std::move(route));
  }
  for (auto& server : TRY(object.texts("dns", 16))) {
    if (!is_address(server)) return invalid(object.path() + ".dns: needs addresses");
    vif.dns.push_back(std::move(server));
  }
  return vif;
}

Result<std::vector<Vif>> read_network(const Object& params, std::string_view key) {
  std::vector<Vif> network;
  for (const auto& object : TRY(params.objects(key, kMaxVifs))) network.push_back(TRY(read_vif(object)));
  return network;
}

Result<VolumeRef> read_volume(const Object& object) {
  VolumeRef volume;
  volume.device = TRY(read_path(object, "device", true));
  if (!volume.device.starts_with("/dev/") || volume.device.find('/', 5) != std::string::npos ||
      volume.device.size() < 6)
    return invalid(object.path() + ".device: needs a name in /dev, such as /dev/vdb");
  volume.path = TRY(read_path(object, "path", true));
  volume.serial = TRY(object.text_or("serial", "", 255));
  volume.is_readonly = TRY(object.flag_or("readonly", false));
  volume.is_shared = TRY(object.flag_or("shared", false));
  if (object.has("boot_index")) volume.is_root = TRY(object.number("boot_index", 0, 1000)) == 0;
  return volume;
}

Result<VolumeRef> read_known_volume(const Object& object) {
  if (!TRY(object.text_or("device", "", 255)).empty()) return read_volume(object);
  VolumeRef volume;
  volume.serial = TRY(object.text_or("serial", "", 255));
  if (volume.serial.empty())
    return invalid(object.path() + ".serial: needs that of the volume, where its device is not said");
  volume.path = TRY(object.text_or("path", ""));
  return volume;
}

Result<std::vector<VolumeRef>> read_volumes(const Object& params, std::string_view key) {
  std::vector<VolumeRef> volumes;
  for (const auto& object : TRY(params.objects(key, kMaxVolumes))) volumes.push_back(TRY(read_volume(object)));
  if (std::count_if(volumes.begin(), volumes.end(), [](const auto& volume) { return volume.is_root; }) > 1)
    return invalid(params.path() + "." + std::string(key) + ": only one volume can be the root (boot_index 0)");
  return volumes;
}

Result<std::vector<FileToWrite>> read_files(const Object& params, std::string_view key) {
  std::vector<FileToWrite> files;
  for (const auto& object : TRY(params.objects(key, kMaxFiles))) {
    FileToWrite file;
    file.path = TRY(read_path(object, "path", key == "files"));
    file.content = TRY(object.bytes("content", kMaxFileContent));
    file.mode = static_cast<std::uint32_t>(TRY(object.number_or("mode", 0644, 0, 0777)));
    files.push_back(std::move(file));
  }
  return files;
}

Json to_json(const IdRange& ids) { return {{"first", ids.first}, {"count", ids.count}}; }

Json to_json(const InstanceSpec& spec) {
  const auto& flavor = spec.flavor;
  Json json = {{"uuid", spec.uuid},
               {"name", spec.name},
               {"hostname", spec.hostname},
               {"project", spec.project},
               {"user", spec.user},
               {"display_name", spec.display_name},
               {"flavor",
                {{"vcpus", flavor.vcpus},
                 {"memory_mb", flavor.memory_mb},
                 {"root_gb", flavor.root_gb},
                 {"ephemeral_gb", flavor.ephemeral_gb},
                 {"swap_mb", flavor.swap_mb},
                 {"extra_specs", to_json(flavor.extra_specs)}}},
               {"image_properties", to_json(spec.image_properties)},
               {"ids", nullptr}};
  if (spec.ids) json["ids"] = to_json(*spec.ids);
  return json;
}

Json to_json(const ImageRef& image) { return {{"key", image.key}, {"format", image.format}}; }

Json to_json(const std::vector<Vif>& network) {
  Json all = Json::array();
  for (const auto& vif : network) {
    Json ips = Json::array(), routes = Json::array();
    for (const auto& ip : vif.ips) ips.push_back({{"address", ip.address}, {"prefix", ip.prefix}});
    for (const auto& route : vif.routes) routes.push_back({{"to", route.to}, {"via", route.via}});
    Json json = {{"id", vif.id}, {"mac", vif.mac},   {"type", vif.type},
                 {"ips", ips},   {"routes", routes}, {"dns", vif.dns}};
    if (!vif.bridge.empty()) json["bridge"] = vif.bridge;
    if (!vif.device.empty()) json["device"] = vif.device;
    if (vif.mtu != 0) json["mtu"] = vif.mtu;
    all.push_back(std::move(json));
  }
  return all;
}

Json to_json(const VolumeRef& volume) {
  return {{"device", volume.device},    {"path", volume.path},
          {"serial", volume.serial},    {"readonly", volume.is_readonly},
          {"shared", volume.is_shared}, {"boot_index", volume.is_root ? Json(0) : Json(nullptr)}};
}

Json to_json(const std::vector<VolumeRef>& volumes) {
  Json all = Json::array();
  for (const auto& volume : volumes) all.push_back(to_json(volume));
  return all;
}

}  // namespace virtuserns::compute
