// <userns:overlay>: which of its directories the controller shifts, and by whose marks files are deleted in it.
#include "conf/base/text.h"
#include "driver/userns/plan_parts.h"

namespace virtuserns::userns {

namespace {

// Idmapped mounts are older than overlays that lie on them.
constexpr std::pair kLayersAreIdmapped{5u, 19u}, kUserXattrs{5u, 11u};

struct Layers {
  Draft& draft;
  const FilesystemDef& fs;

  [[nodiscard]] std::string name() const { return "<userns:overlay> " + quote(fs.target); }
  [[nodiscard]] bool is_root_of_machine() const {
    return draft.context.host.is_initial_user_namespace && !draft.context.paths.is_session;
  }
  [[nodiscard]] bool has_kernel(std::pair<unsigned, unsigned> least) const {
    return std::pair(draft.context.host.kernel_major, draft.context.host.kernel_minor) >= least;
  }
  [[nodiscard]] bool can_shift() const {
    return is_root_of_machine() && draft.context.host.has_idmapped_mounts && has_kernel(kLayersAreIdmapped);
  }
  [[nodiscard]] bool is_of_domain(const FilesystemFacts& facts) const {
    return facts.owner_uid == draft.plan_uid() && facts.owner_gid == draft.plan_gid();
  }
  [[nodiscard]] std::string belongs(const std::string& path, const FilesystemFacts& facts) const {
    return quote(path) + " belongs to " + std::to_string(facts.owner_uid) + ":" + std::to_string(facts.owner_gid) +
           " and not to the domain's root, " + std::to_string(draft.plan_uid()) + ":" +
           std::to_string(draft.plan_gid());
  }

  Result<OwnerShift> of_lower(const std::string& dir, const FilesystemFacts& facts) const {
    if (is_of_domain(facts) && fs.access_mode != "mapped") return OwnerShift::kAlreadyShifted;
    if (can_shift()) return OwnerShift::kIdmappedMount;
    const std::string root = std::to_string(draft.plan_uid());
    if (is_root_of_machine() || fs.access_mode == "mapped")
      return unsupported(
          name() + ": " + belongs(dir, facts) +
          (is_root_of_machine()
               ? ", and only Linux 5.19 and later shifts the layers of an overlay: change the owners of all "
                 "its files to the domain's ids first"
               : ", and only root of the machine has owners shifted: leave out accessmode='mapped'"));
    draft.message(name() + ": " + belongs(dir, facts) +
                  "; its files show as nobody's and cannot be changed: make it by " +
                  "'virt-userns-rootfs create --first " + root + "'");
    return OwnerShift::kAlreadyShifted;
  }

  Result<OwnerShift> of_own(const FilesystemFacts& facts) const {
    if (facts.is_new) return can_shift() ? OwnerShift::kIdmappedMount : OwnerShift::kAlreadyShifted;
    if (is_of_domain(facts)) return OwnerShift::kAlreadyShifted;
    if (can_shift()) return OwnerShift::kIdmappedMount;
    return unsupported(name() + ": what the domain has written, " + belongs(fs.source + "/upper", facts) +
                       ": give the domain the ids that it had, by <idmap>, or another directory");
  }
};

}  // namespace

Result<void> plan_overlay(Draft& draft, const FilesystemDef& fs, const OverlayDef& overlay,
                          const FilesystemFacts& facts, std::uint32_t id) {
  const Layers layers{draft, fs};
  if (draft.context.source_user)
    return unsupported(layers.name() +
                       ": an overlay is for domains without an owner, or with <userns:owner sources='host'>");
  const bool has_user_xattrs = !layers.is_root_of_machine();
  if (has_user_xattrs && !layers.has_kernel(kUserXattrs))
    return unsupported(layers.name() +
                       ": only Linux 5.11 and later has overlays for others than root of the machine: " +
                       "unpack the directories into one");
  const auto own = TRY(layers.of_own(facts));
  OverlaySourceStep step{id, {fs.source, own}, {}, has_user_xattrs};
  for (std::size_t i = 0; i < overlay.lowers.size(); ++i) {
    const auto& dir = overlay.lowers[i];
    const auto lower = TRY(layers.of_lower(dir, i < facts.lowers.size() ? facts.lowers[i] : FilesystemFacts{}));
    step.lowers.push_back({dir, lower});
  }
  draft.plan().before.push_back(std::move(step));
  return {};
}

}  // namespace virtuserns::userns
