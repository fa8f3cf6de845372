#include "driver/compute/containers.h"

#include <sys/stat.h>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/daemon_config.h"
#include "driver/compute/blocks.h"
#include "driver/compute/host.h"
#include "driver/compute/packing.h"
#include "driver/compute/tree.h"

namespace virtuserns::compute {
namespace {

constexpr std::uint64_t kSectorBytes = 512;

// Of /sys/block/loop3/stat (Documentation/block/stat.rst).
Result<DiskCounters> read_counters(const std::string& device) {
  const auto text = TRY(read_kernel_file("/sys/block/" + device.substr(device.rfind('/') + 1) + "/stat"));
  std::vector<std::uint64_t> fields;
  for (const auto field : split_blanks(text)) fields.push_back(parse_number<std::uint64_t>(field).value_or(0));
  if (fields.size() < 7)
    return fail(VIR_ERR_INTERNAL_ERROR, "the counters of " + quote(device) + " are not as they should be");
  return DiskCounters{fields[2] * kSectorBytes, fields[0], fields[6] * kSectorBytes, fields[4]};
}

}  // namespace

std::vector<std::string_view> Containers::image_formats() const {
  return {"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "root-tar"};
}

Result<Json> Containers::inventory() const {
  const auto daemon = TRY(read_daemon_config(settings_.daemon_config));
  // Both ends belong to it.
  const std::uint64_t ids = std::uint64_t{daemon.id_range_last} - daemon.id_range_first + 1;
  return Json{{"CUSTOM_IDMAP_RANGE", {{"total", ids / daemon.id_range_size}, {"max_unit", 1}}}};
}

Result<std::vector<std::string>> Containers::traits() const {
  auto traits = cpu_traits(TRY(read_kernel_file("/proc/cpuinfo")));
  traits.emplace_back("CUSTOM_USERNS");
  traits.emplace_back("CUSTOM_USERNS_IDMAPPED_MOUNTS");
  return traits;
}

std::unique_ptr<InstanceDisk> Containers::disk(const std::string& folder) const {
  return std::make_unique<Disk>(folder);
}

Result<void> Containers::make_disk(const Instance& instance, std::uint64_t bytes) const {
  for (const auto& volume : instance.record.volumes)
    if (volume.is_root && !settings_.root_volumes)
      return fail(
          VIR_ERR_OPERATION_UNSUPPORTED,
          "the root of the instance is a volume, whose file system this host's kernel would have to trust: the operator "
          "may allow that by root_volumes = true in the configuration of virtuserns-compute");
  // One whose root is a volume has a disk as well, when it is rescued.
  if (!instance.record.image && !instance.record.rescue) return {};
  const Disk disk(instance.folder);
  if (!disk.exists() && !spares_->take(bytes, disk.image())) TRY(disk.create(bytes), "make the disk of the instance");
  return disk.mount();
}

Result<void> Containers::check_start(const Instance& instance) const {
  for (const auto& volume : instance.record.volumes)
    if (volume.is_root) TRY(check_filesystem(volume.path));
  return {};
}

Result<Places> Containers::places_of(const Instance& instance) const {
  const auto& record = instance.record;
  const Disk disk(instance.folder);
  Places places;
  if (record.image) {
    places.base = TRY(bases_.find(record.image->key), "the image of the instance");
    places.root = disk.root();
    places.disk_device = TRY(disk.device());
  }
  if (record.rescue) {
    places.rescue_base = TRY(bases_.find(record.rescue->key), "the image to rescue it by");
    places.rescue_root = disk.rescue();
  }
  if (record.has_config_drive) places.config_drive = instance.folder + "/config-2";
  places.console_log = instance.folder + "/console.log";
  return places;
}

Result<std::string> Containers::definition(const Instance& instance) const {
  return make_domain_xml(instance.record, TRY(places_of(instance)));
}

Result<std::optional<IdRange>> Containers::read_ids(const std::string& domain_xml) const {
  return compute::read_ids(domain_xml);
}

Result<void> Containers::write_files(const Instance& instance, const std::vector<FileToWrite>& files,
                                     const std::string& root_password) const {
  if (files.empty() && root_password.empty()) return {};
  const auto places = TRY(places_of(instance));
  const bool is_rescued = instance.record.rescue.has_value();
  const auto tree =
      TRY(open_tree_of(is_rescued ? places.rescue_root : places.root, is_rescued ? places.rescue_base : places.base),
          "open the files of the instance");
  TRY(compute::write_files(tree, files));
  // As clouds do: an image without a root that has a password is none the worse for it.
  if (!root_password.empty())
    if (const auto set = set_password_in(tree, "root", root_password); !set) log_info("compute", set.error().text);
  return {};
}

Result<void> Containers::set_password(const Instance& instance, const std::string& user,
                                      const std::string& password) const {
  if (!instance.record.image)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the root of the instance is a volume: start it to set a password");
  const auto base = TRY(bases_.find(instance.record.image->key));
  const Disk disk(instance.folder);
  TRY(disk.mount());
  auto set = [&]() -> Result<void> {
    const auto tree = TRY(open_tree_of(disk.root(), base), "open the files of the instance");
    return set_password_in(tree, user, password);
  }();
  TRY(disk.unmount());
  return set;
}

Result<void> Containers::write_config_drive(const Instance& instance, const std::vector<FileToWrite>& files) const {
  return make_config_drive(instance.folder + "/config-2", files);
}

Result<void> Containers::remove_rescue(const Instance& instance) const {
  return remove_tree(Disk(instance.folder).rescue());
}

Guests::DumpStyle Containers::dump_style() const { return {VIR_DUMP_LIVE, ".tar"}; }

Result<Packed> Containers::pack(const Instance& instance, const Fd& output, const Fd& stop) const {
  const auto base = TRY(bases_.find(instance.record.image->key));
  TRY(run_packing(
          {bases_.program(), "pack", "--quiet", "--lower", base, Disk(instance.folder).root() + "/upper", "-"},
          output, stop),
      "pack the instance's files");
  struct stat found {};
  if (::fstat(output.get(), &found) != 0) return sys_fail("look at the snapshot");
  return Packed{"root-tar", static_cast<std::uint64_t>(found.st_size)};
}

Result<std::vector<DiskCounters>> Containers::disk_counters(const Instance& instance) const {
  std::vector<DiskCounters> found;
  const auto device = TRY(Disk(instance.folder).device());
  if (!device.empty()) found.push_back(TRY(read_counters(device)));
  return found;
}

}  // namespace virtuserns::compute
