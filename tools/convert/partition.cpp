#include "tools/convert/partition.h"

#include <algorithm>
#include <cstdio>
#include <optional>

namespace virtuserns::convert {
namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::size_t kGptHeader = 92, kMaxEntryBytes = 4096;
constexpr unsigned char kProtective = 0xee;

Error lie(const std::string& text) { return fail(VIR_ERR_OPERATION_FAILED, "its partition table lies: " + text); }

std::string format_guid(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(bytes[i])); };
  char text[40];
  std::snprintf(text, sizeof text, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", le32(bytes, 0), le16(bytes, 4),
                le16(bytes, 6), at(8), at(9), at(10), at(11), at(12), at(13), at(14), at(15));
  return text;
}

// UTF-16 of a label. What is beyond ASCII is in no fstab that we resolve.
std::string format_label(std::string_view bytes) {
  std::string label;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const auto unit = le16(bytes, i);
    if (unit == 0) break;
    label += unit >= 0x20 && unit < 0x7f ? static_cast<char>(unit) : '?';
  }
  return label;
}

Result<void> check_ranges(const std::vector<Partition>& partitions, std::uint64_t disk_size) {
  if (partitions.size() > kMaxPartitions) return lie("more than " + std::to_string(kMaxPartitions) + " partitions");
  auto sorted = partitions;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  std::uint64_t end = 0;
  for (const auto& part : sorted) {
    const std::string name = "partition " + std::to_string(part.number);
    if (part.size > disk_size || part.offset > disk_size - part.size) return lie(name + " is not within the disk");
    if (part.offset < end) return lie(name + " overlaps another one");
    end = part.offset + part.size;
  }
  return {};
}

// The header at sector `lba`, its checksum right and naming its own place; nullopt: there is none.
std::optional<std::string> read_gpt_header(const BlockReader& disk, std::uint64_t sector, std::uint64_t lba) {
  const auto header = read_at(disk, lba * sector, sector);
  if (!header || !header->starts_with("EFI PART")) return std::nullopt;
  const auto bytes = le32(*header, 12);
  if (bytes < kGptHeader || bytes > sector) return std::nullopt;
  auto covered = header->substr(0, bytes);
  covered.replace(16, 4, 4, '\0');
  if (crc32(covered) != le32(*header, 16) || le64(*header, 24) != lba) return std::nullopt;
  return *header;
}

Result<std::vector<Partition>> read_gpt_entries(const BlockReader& disk, std::uint64_t sector,
                                                const std::string& header) {
  const std::uint64_t first_lba = le64(header, 72), count = le32(header, 80), bytes = le32(header, 84);
  if (bytes < 128 || bytes > kMaxEntryBytes || bytes % 128 != 0 || count > kMaxRead / bytes)
    return lie("entries of " + std::to_string(bytes) + " bytes, " + std::to_string(count) + " of them");
  if (first_lba > disk.size / sector) return lie("its entries are not within the disk");
  const auto table = TRY(read_at(disk, first_lba * sector, static_cast<std::size_t>(count * bytes)));
  if (crc32(table) != le32(header, 88)) return lie("the checksum of its entries is wrong");
  std::vector<Partition> partitions;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto entry = std::string_view(table).substr(i * bytes, 128);
    if (entry.substr(0, 16) == std::string_view("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16)) continue;
    const auto first = le64(entry, 32), last = le64(entry, 40);
    if (first > last || last >= disk.size / sector)
      return lie("partition " + std::to_string(i + 1) + " is not within the disk");
    partitions.push_back({i + 1, first * sector, (last - first + 1) * sector, format_guid(entry.substr(16, 16)),
                          format_label(entry.substr(56, 72))});
    if (partitions.size() > kMaxPartitions) break;
  }
  return partitions;
}

Result<std::optional<std::vector<Partition>>> read_gpt(const BlockReader& disk) {
  for (const std::uint64_t sector : {std::uint64_t{512}, std::uint64_t{4096}}) {
    if (disk.size < 4 * sector) continue;
    for (const auto lba : {std::uint64_t{1}, disk.size / sector - 1}) {
      const auto header = read_gpt_header(disk, sector, lba);
      if (!header) continue;
      auto partitions = TRY(read_gpt_entries(disk, sector, *header));
      TRY(check_ranges(partitions, disk.size));
      return std::optional(std::move(partitions));
    }
  }
  return std::optional<std::vector<Partition>>();
}

struct MbrEntry {
  unsigned char status = 0, type = 0;
  std::uint64_t first = 0, count = 0;  // sectors
  [[nodiscard]] bool is_extended() const { return type == 0x05 || type == 0x0f || type == 0x85; }
  [[nodiscard]] bool is_used() const { return type != 0 && count != 0; }
};

MbrEntry mbr_entry(std::string_view sector, std::size_t index) {
  const auto entry = sector.substr(446 + 16 * index, 16);
  return {static_cast<unsigned char>(entry[0]), static_cast<unsigned char>(entry[4]), le32(entry, 8),
          le32(entry, 12)};
}

bool has_mbr_mark(std::string_view sector) { return sector.substr(510, 2) == "\x55\xaa"; }

std::string mbr_uuid(std::uint32_t signature, std::uint32_t number) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x-%02x", signature, number & 0xff);
  return text;
}

// The chain of logical partitions below `extended`. It may only go forwards, so it ends.
Result<void> read_logical(const BlockReader& disk, const MbrEntry& extended, std::uint32_t signature,
                          std::vector<Partition>& partitions) {
  std::uint64_t at = extended.first, previous = 0;
  for (std::uint32_t number = 5; number < 5 + kMaxPartitions; ++number) {
    if (at <= previous || at >= extended.first + extended.count) return lie("its chain of logical partitions");
    const auto sector = TRY(read_at(disk, at * kSector, kSector), "logical partition " + std::to_string(number));
    if (!has_mbr_mark(sector)) return lie("its chain of logical partitions has a hole");
    const auto entry = mbr_entry(sector, 0), next = mbr_entry(sector, 1);
    if (entry.is_used() && !entry.is_extended())
      partitions.push_back(
          {number, (at + entry.first) * kSector, entry.count * kSector, mbr_uuid(signature, number), ""});
    if (!next.is_used() || !next.is_extended()) return {};
    previous = at;
    at = extended.first + next.first;
  }
  return lie("its chain of logical partitions does not end");
}

Result<std::vector<Partition>> read_mbr(const BlockReader& disk) {
  std::vector<Partition> partitions;
  const auto sector = TRY(read_at(disk, 0, kSector));
  if (!has_mbr_mark(sector)) return partitions;
  const auto signature = le32(sector, 440);
  for (std::uint32_t i = 0; i < 4; ++i) {
    const auto entry = mbr_entry(sector, i);
    // The boot sector of a file system ends with the same two bytes: there is no table in it.
    if (entry.status != 0 && entry.status != 0x80) return std::vector<Partition>();
    if (entry.type == kProtective) return lie("it promises a GPT, and none is whole");
    if (!entry.is_used()) continue;
    if (entry.is_extended())
      TRY(read_logical(disk, entry, signature, partitions));
    else
      partitions.push_back({i + 1, entry.first * kSector, entry.count * kSector, mbr_uuid(signature, i + 1), ""});
  }
  TRY(check_ranges(partitions, disk.size));
  std::sort(partitions.begin(), partitions.end(), [](const auto& a, const auto& b) { return a.number < b.number; });
  return partitions;
}

}  // namespace

Result<std::vector<Partition>> read_partitions(const BlockReader& disk) {
  if (disk.size < kSector) return std::vector<Partition>();
  if (auto gpt = TRY(read_gpt(disk))) return std::move(*gpt);
  return read_mbr(disk);
}

}  // namespace virtuserns::convert
