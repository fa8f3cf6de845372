#include "tools/convert/lvm.h"

#include <algorithm>
#include <map>

#include "conf/base/text.h"
#include "tools/convert/lvm_text.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kSector = 512, kLabelSectors = 4, kMaxAreas = 16;
constexpr std::uint32_t kLvmSeed = 0xf597a6cf;
constexpr std::string_view kAreaMagic{" LVM2 x[5A%r0N*>", 16};

Error lie(const std::string& text) { return fail(VIR_ERR_OPERATION_FAILED, "its LVM label lies: " + text); }

struct Area {
  std::uint64_t offset = 0, size = 0;
};

// (offset, size) pairs up to one that is zero; `at` is behind that.
Result<std::vector<Area>> read_areas(std::string_view label, std::size_t& at) {
  std::vector<Area> areas;
  for (; at + 16 <= label.size(); at += 16) {
    const Area area{le64(label, at), le64(label, at + 8)};
    if (area.offset == 0) {
      at += 16;
      return areas;
    }
    if (areas.size() == kMaxAreas) break;
    areas.push_back(area);
  }
  return lie("its list of areas does not end");
}

// The text that a metadata area's header points to; it may run over the area's end, to behind the header.
Result<std::string> read_area(const BlockReader& volume, const Area& area) {
  const auto header = TRY(read_at(volume, area.offset, kSector));
  if (std::string_view(header).substr(4, 16) != kAreaMagic ||
      crc32(std::string_view(header).substr(4), kLvmSeed, 0) != le32(header, 0))
    return lie("the header of its metadata is damaged");
  const auto area_size = le64(header, 32), offset = le64(header, 40), size = le64(header, 48);
  if (offset == 0 && size == 0) return std::string();
  if (area_size > volume.size || offset < kSector || offset >= area_size || size > kMaxLvmText ||
      size > area_size - kSector)
    return lie("its metadata is not within its area");
  const auto first = std::min<std::uint64_t>(size, area_size - offset);
  auto text = TRY(read_at(volume, area.offset + offset, static_cast<std::size_t>(first)));
  if (first < size) text += TRY(read_at(volume, area.offset + kSector, static_cast<std::size_t>(size - first)));
  if (crc32(text, kLvmSeed, 0) != le32(header, 56)) return lie("the checksum of its metadata is wrong");
  return text;
}

Result<std::optional<LvmPhysical>> read_label(const BlockReader& volume, std::string_view label) {
  std::size_t at = le32(label, 20);
  if (at < 32 || at + 40 > kSector) return lie("its header is not within the label");
  LvmPhysical physical;
  physical.uuid = label.substr(at, 32);
  at += 40;  // uuid, size of the device
  (void)TRY(read_areas(label, at));
  const auto metadata_areas = TRY(read_areas(label, at));
  std::string problem;
  for (const auto& area : metadata_areas) {
    auto text = read_area(volume, area);
    if (!text)
      problem = text.error().text;
    else if (!text->empty())
      physical.metadata = std::move(*text);
    if (!physical.metadata.empty()) return std::optional(std::move(physical));
  }
  if (!problem.empty()) return fail(VIR_ERR_OPERATION_FAILED, problem);
  return std::optional(std::move(physical));
}

std::string without_dashes(std::string text) {
  std::erase(text, '-');
  return text;
}

struct PhysicalPlace {
  std::string uuid;
  std::uint64_t start = 0, extents = 0;  // sectors; count
};

struct Group {
  std::string name;
  std::uint64_t extent_sectors = 0;
  std::map<std::string, PhysicalPlace> physical;
};

Result<void> add_segment(const Group& group, const LvmNode& segment, LvmVolume& volume) {
  const auto type = segment.text("type");
  const auto stripes = segment.number("stripe_count").value_or(0);
  if (type != "striped" || stripes != 1) {
    volume.problem =
        type == "striped" ? "striped over " + std::to_string(stripes) : "of type " + quote(type.empty() ? "?" : type);
    return {};
  }
  const auto* place = segment.child("stripes");
  const auto count = segment.number("extent_count");
  if (!place || place->values.size() != 2 || !count)
    return fail(VIR_ERR_OPERATION_FAILED, "a segment without a place");
  const auto physical = group.physical.find(place->values[0]);
  const auto first = parse_number<std::uint64_t>(place->values[1]);
  if (physical == group.physical.end() || !first) return fail(VIR_ERR_OPERATION_FAILED, "a segment on no volume");
  const auto& pv = physical->second;
  if (*count == 0 || *first > pv.extents || *count > pv.extents - *first)
    return fail(VIR_ERR_OPERATION_FAILED, "a segment that is not within its physical volume");
  const auto extent_bytes = group.extent_sectors * kSector;
  const LvmSegment added{pv.uuid, pv.start * kSector + *first * extent_bytes, *count * extent_bytes};
  if (!volume.segments.empty() && volume.segments.back().pv == added.pv &&
      volume.segments.back().offset + volume.segments.back().size == added.offset)
    volume.segments.back().size += added.size;
  else
    volume.segments.push_back(added);
  return {};
}

Result<LvmVolume> read_volume(const Group& group, const LvmNode& node) {
  LvmVolume volume{group.name, node.name, {}, ""};
  const auto count = node.number("segment_count").value_or(0);
  std::uint64_t next_extent = 0;
  for (std::uint64_t i = 1; i <= count && volume.problem.empty(); ++i) {
    const auto* segment = node.child("segment" + std::to_string(i));
    if (!segment || segment->number("start_extent") != next_extent)
      return fail(VIR_ERR_OPERATION_FAILED, "its segments have a hole");
    TRY(add_segment(group, *segment, volume));
    next_extent += segment->number("extent_count").value_or(0);
  }
  if (volume.problem.empty() && volume.segments.empty()) volume.problem = "empty";
  return volume;
}

Result<Group> read_group(const LvmNode& node) {
  Group group;
  group.name = node.name;
  group.extent_sectors = node.number("extent_size").value_or(0);
  // At most 4 GiB an extent and 2^40 of them, so that nothing below can wrap.
  if (group.extent_sectors == 0 || group.extent_sectors > 0x800000)
    return fail(VIR_ERR_OPERATION_FAILED, "LVM metadata: no size of extents");
  const auto* physical = node.child("physical_volumes");
  for (const auto& pv : physical ? physical->children : std::vector<LvmNode>()) {
    const PhysicalPlace place{without_dashes(pv.text("id")), pv.number("pe_start").value_or(0),
                              pv.number("pe_count").value_or(0)};
    if (place.start > 1ull << 40 || place.extents > 1ull << 30)
      return fail(VIR_ERR_OPERATION_FAILED, "LVM metadata: a physical volume that no disk can hold");
    group.physical[pv.name] = place;
  }
  return group;
}

}  // namespace

Result<std::optional<LvmPhysical>> read_lvm_physical(const BlockReader& volume) {
  if (volume.size < kLabelSectors * kSector) return std::optional<LvmPhysical>();
  const auto start = TRY(read_at(volume, 0, kLabelSectors * kSector));
  for (std::size_t sector = 0; sector < kLabelSectors; ++sector) {
    const auto label = std::string_view(start).substr(sector * kSector, kSector);
    if (!label.starts_with("LABELONE") || label.substr(24, 8) != "LVM2 001") continue;
    if (le64(label, 8) != sector || crc32(label.substr(20), kLvmSeed, 0) != le32(label, 16)) continue;
    return read_label(volume, label);
  }
  return std::optional<LvmPhysical>();
}

Result<std::vector<LvmVolume>> parse_lvm_metadata(std::string_view text) {
  const auto root = TRY(parse_lvm_text(text));
  std::vector<LvmVolume> volumes;
  for (const auto& node : root.children) {
    if (!node.is_section) continue;
    const auto group = TRY(read_group(node));
    const auto* logical = node.child("logical_volumes");
    for (const auto& lv : logical ? logical->children : std::vector<LvmNode>()) {
      if (!lv.is_section || !lv.has_value("status", "VISIBLE")) continue;
      if (volumes.size() == kMaxLvmVolumes) return fail(VIR_ERR_OPERATION_FAILED, "LVM metadata: too many volumes");
      volumes.push_back(TRY(read_volume(group, lv), "logical volume " + quote(group.name + "/" + lv.name)));
    }
  }
  return volumes;
}

}  // namespace virtuserns::convert
