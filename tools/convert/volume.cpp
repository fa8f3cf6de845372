#include "tools/convert/volume.h"

#include <blkid/blkid.h>

#include <algorithm>
#include <map>

#include "conf/base/text.h"
#include "tools/convert/lvm.h"
#include "tools/convert/partition.h"

namespace virtuserns::convert {
namespace {

struct Physical {
  const DiskView* disk = nullptr;
  Volume place;
};

struct Search {
  Volumes found;
  std::map<std::string, Physical> physical;   // by uuid
  std::map<std::string, std::string> groups;  // the newest metadata, by its text before the first '{'
};

std::string probed(blkid_probe probe, const char* name) {
  const char* value = nullptr;
  return ::blkid_probe_lookup_value(probe, name, &value, nullptr) == 0 && value ? value : "";
}

// What libblkid sees, which the guest's udev and mount saw too. Two answers at once are none.
void identify(const Fd& file, Volume& volume) {
  const blkid_probe probe = ::blkid_new_probe();
  if (!probe) return;
  if (::blkid_probe_set_device(probe, file.get(), static_cast<blkid_loff_t>(volume.offset),
                               static_cast<blkid_loff_t>(volume.size)) == 0) {
    ::blkid_probe_enable_superblocks(probe, 1);
    ::blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID | BLKID_SUBLKS_LABEL);
    ::blkid_probe_enable_partitions(probe, 0);
    if (::blkid_do_safeprobe(probe) == 0) {
      volume.type = probed(probe, "TYPE");
      volume.uuid = probed(probe, "UUID");
      volume.label = probed(probe, "LABEL");
    }
  }
  ::blkid_free_probe(probe);
}

void report_unusable(const Volume& volume, std::vector<Finding>& findings) {
  const std::string object = "volume '" + volume.name + "'";
  if (volume.type == "crypto_LUKS")
    findings.push_back({Severity::kLoss, object, "is encrypted and not opened", "decrypt it in the VM first"});
  else if (volume.type.ends_with("_raid_member") || volume.type == "zfs_member" || volume.type == "bcache")
    findings.push_back({Severity::kLoss, object, "is part of something that is not assembled (" + volume.type + ")",
                        "copy its files to a plain file system in the VM first"});
}

// A physical volume that was away keeps old metadata.
std::uint64_t sequence_of(std::string_view metadata) {
  const auto at = metadata.find("seqno = ");
  if (at == std::string_view::npos) return 0;
  const auto rest = metadata.substr(at + 8);
  return parse_number<std::uint64_t>(rest.substr(0, rest.find_first_not_of("0123456789"))).value_or(0);
}

Result<void> take_place(const DiskView& disk, Volume volume, Search& search) {
  identify(*disk.file, volume);
  const auto part = part_reader(disk.bytes, volume.offset, volume.size);
  if (auto physical = TRY(read_lvm_physical(part), "volume " + quote(volume.name))) {
    volume.type = "LVM2_member";
    if (!search.physical.emplace(physical->uuid, Physical{&disk, volume}).second)
      return fail(VIR_ERR_OPERATION_FAILED, "two volumes are the same LVM physical volume: " + quote(volume.name));
    if (!physical->metadata.empty()) {
      auto& newest = search.groups[physical->metadata.substr(0, physical->metadata.find('{'))];
      if (newest.empty() || sequence_of(physical->metadata) > sequence_of(newest)) newest = physical->metadata;
    }
  }
  report_unusable(volume, search.found.findings);
  search.found.all.push_back(std::move(volume));
  return {};
}

Result<void> search_disk(const DiskView& disk, Search& search) {
  const auto partitions = TRY(read_partitions(disk.bytes), "disk '" + disk.name + "'");
  if (partitions.empty()) {
    Volume whole;
    whole.disk = whole.name = disk.name;
    whole.size = disk.bytes.size;
    return take_place(disk, std::move(whole), search);
  }
  const std::string between = !disk.name.empty() && disk.name.back() >= '0' && disk.name.back() <= '9' ? "p" : "";
  for (const auto& part : partitions) {
    Volume volume;
    volume.disk = disk.name;
    volume.name = disk.name + between + std::to_string(part.number);
    volume.offset = part.offset;
    volume.size = part.size;
    volume.part_uuid = part.uuid;
    volume.part_label = part.label;
    volume.partition = part.number;
    TRY(take_place(disk, std::move(volume), search));
  }
  return {};
}

Result<void> take_logical(const LvmVolume& logical, Search& search) {
  const std::string name = logical.vg + "/" + logical.name, object = "logical volume '" + name + "'";
  const auto lost = [&](const std::string& text) {
    search.found.findings.push_back(
        {Severity::kLoss, object, text, "make it linear in the VM, by lvconvert or pvmove"});
    return Result<void>();
  };
  if (!logical.problem.empty()) return lost("is " + logical.problem + ", and not linear");
  if (logical.segments.size() != 1)
    return lost("is in " + std::to_string(logical.segments.size()) + " pieces, and only one can be opened");
  const auto& segment = logical.segments.front();
  const auto on = search.physical.find(segment.pv);
  if (on == search.physical.end()) return lost("is on a disk that was not given");
  const auto& place = on->second.place;
  if (segment.offset > place.size || segment.size > place.size - segment.offset)
    return fail(VIR_ERR_OPERATION_FAILED, object + " is not within its physical volume");
  Volume volume;
  volume.disk = on->second.disk->name;
  volume.name = name;
  volume.offset = place.offset + segment.offset;
  volume.size = segment.size;
  identify(*on->second.disk->file, volume);
  report_unusable(volume, search.found.findings);
  search.found.all.push_back(std::move(volume));
  return {};
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// vg-lv with the dashes of each doubled, as device-mapper writes it.
std::string mapper_name(const Volume& volume) {
  std::string name;
  for (const char c : volume.name) name += c == '-' ? "--" : c == '/' ? "-" : std::string(1, c);
  return name;
}

// "sda1" of a VM with another bus is "vda1" here.
bool is_same_device(std::string_view wanted, const Volume& volume) {
  if (volume.name == wanted) return true;
  const auto letter = [](std::string_view name) { return name.find('d'); };
  const auto a = letter(wanted), b = letter(volume.name);
  if (a == std::string_view::npos || b == std::string_view::npos || a > 2 || b > 2) return false;
  return wanted.substr(a) == std::string_view(volume.name).substr(b);
}

struct Key {
  const char* prefix;
  std::string Volume::*field;
};
constexpr Key kKeys[] = {{"UUID=", &Volume::uuid},
                         {"LABEL=", &Volume::label},
                         {"PARTUUID=", &Volume::part_uuid},
                         {"PARTLABEL=", &Volume::part_label},
                         {"/dev/disk/by-uuid/", &Volume::uuid},
                         {"/dev/disk/by-label/", &Volume::label},
                         {"/dev/disk/by-partuuid/", &Volume::part_uuid},
                         {"/dev/disk/by-partlabel/", &Volume::part_label}};

}  // namespace

Result<Volumes> find_volumes(std::span<const DiskView> disks) {
  Search search;
  for (const auto& disk : disks) TRY(search_disk(disk, search));
  for (const auto& [_, metadata] : search.groups)
    for (const auto& logical : TRY(parse_lvm_metadata(metadata))) TRY(take_logical(logical, search));
  return std::move(search.found);
}

bool is_mountable(const Volume& volume) {
  constexpr const char* kTypes[] = {"ext2", "ext3", "ext4", "xfs", "btrfs"};
  return std::find(std::begin(kTypes), std::end(kTypes), volume.type) != std::end(kTypes);
}

const Volume* resolve_spec(std::span<const Volume> volumes, std::string_view spec) {
  for (const auto& key : kKeys) {
    if (!spec.starts_with(key.prefix)) continue;
    auto value = std::string(spec.substr(std::string_view(key.prefix).size()));
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
    const bool is_id = std::string_view(key.prefix).find("uuid") != std::string_view::npos ||
                       std::string_view(key.prefix).find("UUID") != std::string_view::npos;
    for (const auto& volume : volumes)
      if (!value.empty() && (is_id ? lower(volume.*key.field) == lower(value) : volume.*key.field == value))
        return &volume;
    return nullptr;
  }
  if (!spec.starts_with("/dev/")) return nullptr;
  const auto name = spec.substr(5);
  for (const auto& volume : volumes)
    if (volume.name == name || name == "mapper/" + mapper_name(volume)) return &volume;
  for (const auto& volume : volumes)
    if (volume.name.find('/') == std::string::npos && is_same_device(name, volume)) return &volume;
  return nullptr;
}

}  // namespace virtuserns::convert
