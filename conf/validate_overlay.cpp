// <userns:overlay>: directories below what a <filesystem> writes.
#include <set>

#include "conf/base/text.h"
#include "conf/validate.h"
#include "conf/validate_parts.h"

namespace virtuserns {

namespace {

// "/a" holds "/a" and "/a/b".
bool holds(const std::string& folder, const std::string& path) {
  return folder == "/" || path == folder || path.starts_with(folder + "/");
}

Result<void> validate_overlay(const OverlayDef& overlay, const std::string& name) {
  if (overlay.lowers.empty())
    return xml_error(name + " has nothing below: write <userns:lower dir='/path/to/base'/>");
  if (overlay.lowers.size() > kMaxOverlayLowers)
    return xml_error(name + " has " + std::to_string(overlay.lowers.size()) + " directories below: at most " +
                     std::to_string(kMaxOverlayLowers) + " are possible, so merge some");
  std::set<std::string> seen;
  for (const auto& lower : overlay.lowers) {
    TRY(validate_absolute(lower, name + ": dir of <userns:lower>"));
    if (has_dot_dot(lower)) return xml_error(name + ": <userns:lower> " + quote(lower) + " must not have '..' in it");
    if (tidy_path(lower) == "/")
      return unsupported(name + ": the host's own root directory is no layer of a domain's: name a directory for it");
    if (!seen.insert(tidy_path(lower)).second)
      return xml_error(name + ": <userns:lower> " + quote(lower) + " appears twice: once is enough");
  }
  return {};
}

}  // namespace

Result<void> validate_overlays(const std::vector<OverlayDef>& overlays) {
  std::set<std::string> targets;
  for (const auto& overlay : overlays) {
    const std::string name = "<userns:overlay> " + quote(overlay.target);
    TRY(validate_absolute(overlay.target, "target of <userns:overlay>"));
    if (!targets.insert(tidy_path(overlay.target)).second) return xml_error(name + " appears twice");
    TRY(validate_overlay(overlay, name));
  }
  return {};
}

// By their names; what links make of them is the kernel's to refuse.
Result<void> validate_overlay_sources(const DomainDef& def) {
  const auto base = find_written_base(def, def);
  if (!base) return {};
  return unsupported(
      quote(*base) +
      " of <userns:overlay> and a source that the domain writes to are in one another: what is written "
      "needs a directory of its own");
}

const OverlayDef* find_overlay(const DomainDef& def, const FilesystemDef& fs) {
  for (const auto& overlay : def.userns.overlays)
    if (fs.type == FilesystemType::kMount && tidy_path(overlay.target) == tidy_path(fs.target)) return &overlay;
  return nullptr;
}

std::optional<std::string> find_written_base(const DomainDef& reader, const DomainDef& writer) {
  const auto meet = [](const std::string& one, const std::string& other) {
    return holds(tidy_path(one), tidy_path(other)) || holds(tidy_path(other), tidy_path(one));
  };
  for (const auto& fs : reader.filesystems) {
    const auto* overlay = find_overlay(reader, fs);
    if (!overlay) continue;
    for (const auto& other : writer.filesystems) {
      const bool is_overlay = find_overlay(writer, other);
      if (other.type != FilesystemType::kMount || (other.readonly && !is_overlay)) continue;
      for (const auto& lower : overlay->lowers)
        if (meet(lower, other.source)) return lower;
      // Of two overlays that write to one directory the second is refused by who has it locked.
      if (!is_overlay && meet(fs.source, other.source)) return fs.source;
    }
  }
  return std::nullopt;
}

std::vector<std::string> unused_overlays(const DomainDef& def) {
  std::vector<std::string> targets;
  for (const auto& overlay : def.userns.overlays) {
    bool is_used = false;
    for (const auto& fs : def.filesystems) is_used = is_used || find_overlay(def, fs) == &overlay;
    if (!is_used) targets.push_back(overlay.target);
  }
  return targets;
}

}  // namespace virtuserns
