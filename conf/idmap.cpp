#include "conf/idmap.h"

#include <algorithm>

#include "conf/base/text.h"
#include "conf/validate.h"

namespace virtuserns {

namespace {

constexpr std::uint64_t kIdSpace = std::uint64_t{1} << 32;

// Two ranges of `ranges` that overlap, by their places in it.
std::optional<std::pair<std::size_t, std::size_t>> find_overlap(const std::vector<IdRange>& ranges) {
  std::vector<std::size_t> order(ranges.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return ranges[a] < ranges[b]; });
  for (std::size_t i = 1; i < order.size(); ++i)
    if (ranges[order[i - 1]].overlaps(ranges[order[i]])) return std::pair(order[i - 1], order[i]);
  return std::nullopt;
}

std::vector<IdRange> inside_ranges(const IdMapLines& lines) {
  std::vector<IdRange> ranges;
  for (const auto& line : lines) ranges.push_back({line.inside, line.count});
  return ranges;
}

std::string show(const IdMapLine& line) {
  return "'" + std::to_string(line.inside) + " " + std::to_string(line.outside) + " " + std::to_string(line.count) +
         "'";
}

// "<uid start='0' target='1000' count='10'/>"
std::string show(const char* kind, const IdMapEntry& entry) {
  return std::string("<") + kind + " start='" + std::to_string(entry.start) +
         (entry.target ? "' target='" + std::to_string(*entry.target) : "") + "' count='" +
         std::to_string(entry.count) + "'/>";
}

Error refuse(const std::string& what) { return fail(VIR_ERR_XML_ERROR, "idmap: " + what); }

Result<void> validate_entry(const char* kind, const IdMapEntry& entry) {
  const auto shown = show(kind, entry);
  if (entry.count == 0) return refuse(shown + " maps nothing: count must be above 0");
  if (entry.start + std::uint64_t{entry.count} > kIdSpace)
    return refuse(shown + " passes the last id: start + count must not be above 4294967296");
  if (entry.target && *entry.target + std::uint64_t{entry.count} > kIdSpace)
    return refuse(shown + " passes the last host id: target + count must not be above 4294967296");
  // (uid_t)-1 means "no id" to the kernel, on both sides (user_namespaces(7)).
  if (entry.start + std::uint64_t{entry.count} == kIdSpace)
    return refuse(shown + " maps id 4294967295, which the kernel reserves: lower count by one");
  if (entry.target && *entry.target + std::uint64_t{entry.count} == kIdSpace)
    return refuse(shown + " maps to host id 4294967295, which the kernel reserves: lower count by one");
  if (entry.target && *entry.target == 0)
    return refuse(shown +
                  " maps to host id 0, which is root of the host: choose a target above 0, or leave target out");
  return {};
}

Result<void> validate_entries(const char* kind, const std::vector<IdMapEntry>& entries) {
  if (entries.size() > kMaxIdMapLines)
    return refuse(std::to_string(entries.size()) + " <" + kind +
                  "> entries are more than the kernel takes: at most " + std::to_string(kMaxIdMapLines));
  std::vector<IdRange> starts, targets;
  for (const auto& entry : entries) {
    TRY(validate_entry(kind, entry));
    starts.push_back({entry.start, entry.count});
    if (entry.target) targets.push_back({*entry.target, entry.count});
  }
  if (const auto pair = find_overlap(starts))
    return refuse(show(kind, entries[pair->first]) + " and " + show(kind, entries[pair->second]) +
                  " overlap: an id inside can be mapped only once");
  if (!targets.empty() && targets.size() != entries.size())
    return refuse(std::string("some <") + kind +
                  "> entries have a target and some have none: give it to all, or to none "
                  "for an automatic range");
  if (const auto pair = find_overlap(targets))
    return refuse(show(kind, entries[pair->first]) + " and " + show(kind, entries[pair->second]) +
                  " overlap on the host: a host id can stand for only one id inside");
  const auto maps_root = [](const IdMapEntry& e) { return e.start == 0; };
  if (std::none_of(entries.begin(), entries.end(), maps_root))
    return refuse(std::string("no <") + kind + "> entry has start='0': the root of the container must be mapped");
  return {};
}

}  // namespace

Result<void> validate_idmap(const IdMapDef& map) {
  if (map.empty()) return {};
  if (map.uid.empty() || map.gid.empty())
    return refuse(map.uid.empty() ? "there are <gid> entries but no <uid> entry: both must be mapped"
                                  : "there are <uid> entries but no <gid> entry: both must be mapped");
  TRY(validate_entries("uid", map.uid));
  TRY(validate_entries("gid", map.gid));
  if (map.uid.front().target.has_value() != map.gid.front().target.has_value())
    return refuse("only one of <uid> and <gid> has targets: give them to both, or to none for an automatic range");
  return {};
}

std::optional<std::string> refuse_kernel_map(const IdMapLines& lines) {
  if (lines.empty()) return "the map has no line";
  if (lines.size() > kMaxIdMapLines)
    return std::to_string(lines.size()) + " lines are more than " + std::to_string(kMaxIdMapLines);
  for (const auto& line : lines) {
    // kernel/user_namespace.c, map_write(): (first + count) <= first refuses 0 and wrapping, and an id of -1.
    const auto wraps = [&](std::uint32_t first) { return first + std::uint64_t{line.count} >= kIdSpace; };
    if (line.count == 0) return "line " + show(line) + " has count 0";
    if (wraps(line.inside)) return "line " + show(line) + " passes the last id inside";
    if (wraps(line.outside)) return "line " + show(line) + " passes the last id outside";
  }
  if (const auto pair = find_overlap(inside_ranges(lines)))
    return "lines " + show(lines[pair->first]) + " and " + show(lines[pair->second]) + " overlap inside";
  if (const auto pair = find_overlap(host_ranges(lines)))
    return "lines " + show(lines[pair->first]) + " and " + show(lines[pair->second]) + " overlap outside";
  return std::nullopt;
}

std::optional<std::uint32_t> to_host(const IdMapLines& lines, std::uint32_t inside) {
  for (const auto& line : lines)
    if (inside >= line.inside && inside - line.inside < line.count) return line.outside + (inside - line.inside);
  return std::nullopt;
}

std::optional<std::uint32_t> to_inside(const IdMapLines& lines, std::uint32_t host) {
  for (const auto& line : lines)
    if (host >= line.outside && host - line.outside < line.count) return line.inside + (host - line.outside);
  return std::nullopt;
}

std::vector<IdRange> host_ranges(const IdMapLines& lines) {
  std::vector<IdRange> ranges;
  for (const auto& line : lines) ranges.push_back({line.outside, line.count});
  return ranges;
}

std::string format_kernel_map(const IdMapLines& lines) {
  std::string text;
  for (const auto& line : lines)
    text +=
        std::to_string(line.inside) + " " + std::to_string(line.outside) + " " + std::to_string(line.count) + "\n";
  return text;
}

Result<IdMapLines> parse_kernel_map(const std::string& text) {
  IdMapLines lines;
  for (const auto row : split(text, '\n')) {
    const auto words = split_blanks(row);
    if (words.empty()) continue;
    if (words.size() != 3)
      return fail(VIR_ERR_INTERNAL_ERROR, "id map line " + quote(row) + " has not three numbers");
    const auto inside = parse_number<std::uint32_t>(words[0]), outside = parse_number<std::uint32_t>(words[1]),
               count = parse_number<std::uint32_t>(words[2]);
    if (!inside || !outside || !count)
      return fail(VIR_ERR_INTERNAL_ERROR, "id map line " + quote(row) + " has not three numbers");
    if (lines.size() == kMaxIdMapLines) return fail(VIR_ERR_INTERNAL_ERROR, "id map has more than 340 lines");
    lines.push_back({*inside, *outside, *count});
  }
  return lines;
}

}  // namespace virtuserns
