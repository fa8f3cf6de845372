#include "tools/convert/rollback.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/device.h"
#include "tools/convert/convert.h"
#include "tools/convert/domains.h"
#include "tools/convert/images_xml.h"
#include "tools/convert/machine.h"
#include "tools/convert/way_back.h"
#include "xml/domain.h"

namespace virtuserns::convert {
namespace {

// The overlay of a volume, and what it lies on.
Result<std::vector<Image>> chain_of(const Job& job, const Placed& place) {
  std::vector<Image> chain{TRY(read_image(job.path(overlay_name(place)), "qcow2"))};
  for (const auto& disk : job.state().disks)
    if (disk.target == place.volume.disk) chain.insert(chain.end(), disk.chain.begin(), disk.chain.end());
  return chain;
}

// The volume alone, out of the overlay and all that it is based on.
Result<void> make_own(const Job& job, const Placed& place, const std::string& workplace) {
  const auto path = job.path(own_name(place)), partial = path + ".new";
  // What a run has left that was cut short or refused is older than the overlay: the container may have run since.
  for (const auto& older : {path, partial})
    if (::unlink(older.c_str()) != 0 && errno != ENOENT) return sys_fail("remove " + quote(older));
  auto chain = TRY(chain_of(job, place));
  auto from = TRY(OpenDisk::open(chain, Access::kRead, workplace));
  auto to = TRY(OpenDisk::open({TRY(make_disk(partial, place.volume.size))}, Access::kWrite, workplace));
  TRY(copy_part(from, place.volume.offset, place.volume.size, to), "copy volume " + quote(place.volume.name));
  TRY(to.close());
  TRY(from.close());
  if (::rename(partial.c_str(), path.c_str()) != 0) return sys_fail("rename " + quote(partial));
  return sync_directory(job.path("."));
}

// Whether a run that was cut short had come so far that the container is started from its own volumes.
Result<bool> has_own(const Job& job) {
  const auto def = TRY(xml::parse_domain(TRY(read_domain(job.state().uri, job.state().domain_uuid)).xml));
  const auto& places = job.state().places;
  return std::any_of(def.filesystems.begin(), def.filesystems.end(), [&](const auto& filesystem) {
    return std::any_of(places.begin(), places.end(),
                       [&](const auto& place) { return filesystem.source == job.path(own_name(place)); });
  });
}

// The definition as it is now, maybe changed by a person, with the new files in the place of the overlays.
Result<void> redefine(const Job& job) {
  const auto& state = job.state();
  const auto domain = TRY(read_domain(state.uri, state.domain_uuid));
  if (domain.is_active) return fail(VIR_ERR_OPERATION_INVALID, "the container runs; shut it off first");
  auto def = TRY(xml::parse_domain(domain.xml));
  auto parts = def.userns.images;
  for (const auto& place : state.places)
    for (auto& filesystem : def.filesystems) {
      if (filesystem.source != job.path(overlay_name(place)) || filesystem.target != place.target) continue;
      filesystem.source = job.path(own_name(place));
      for (auto& part : parts)
        if (part.target == place.target) part = {part.target, {}, {}, {}, part.subvolume, {}};
    }
  std::erase_if(parts, [](const auto& part) { return part == ImagePartDef{part.target, {}, {}, {}, "", {}}; });
  TRY(set_images(def, parts));
  return define_domain(state.uri, xml::format_domain(def, xml::FormatKind::kInactive, xml::Secrets::kShow),
                       domain.autostart.value_or(false));
}

// While the overlays are copied nobody may start the container: it would write to what is no longer used.
Result<std::vector<Fd>> lock_overlays(const Job& job) {
  std::vector<Fd> locks;
  for (const auto& place : job.state().places) {
    const auto path = job.path(overlay_name(place));
    Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return sys_fail("open " + quote(path));
    TRY(kernel::lock_image(file, kernel::Access::kReadOnly), "the container runs; shut it off first");
    locks.push_back(std::move(file));
  }
  return locks;
}

Result<void> copy_volumes(const Job& job, const Settings& settings, const std::string& workplace) {
  for (const auto& disk : job.state().disks)
    for (const auto& image : disk.chain) TRY(check_unchanged(image));
  for (const auto& place : job.state().places) {
    settings.say("copying volume " + quote(place.volume.name));
    TRY(make_own(job, place, workplace));
  }
  return {};
}

Result<void> leave_disks(Job& job, const Settings& settings, const std::string& workplace) {
  if (TRY(has_own(job))) return {};
  const auto locks = TRY(lock_overlays(job));
  if (auto copied = copy_volumes(job, settings, workplace); !copied) {
    for (const auto& place : job.state().places)
      for (const auto* end : {"", ".new"}) (void)::unlink((job.path(own_name(place)) + end).c_str());
    return copied;
  }
  // Only now: whatever stops a commit before leaves a conversion that can be rolled back.
  auto state = job.state();
  state.phase = Phase::kCommitting;
  TRY(job.save(std::move(state)));
  return redefine(job);
}

}  // namespace

std::string own_name(const Placed& place) {
  const auto name = overlay_name(place);
  return name.substr(0, name.rfind('.')) + ".own.qcow2";
}

Result<std::vector<Finding>> undo_job(Job& job, const Settings& settings) {
  auto state = job.state();
  const auto live = state.live;
  // Before anything is taken away.
  if (live)
    TRY(check_way_back(*live), "the way back (the machine's definition is in " + quote(job.path("state.json")) + ")");
  if (!state.domain_uuid.empty()) TRY(undefine_domain(state.uri, state.domain_uuid));
  const bool was_converting = state.phase == Phase::kConverting;
  state.phase = Phase::kRollingBack;
  // A disk that is full is a reason to undo, and has no room for a state. What is known of a machine that ran is needed still.
  if (!job.save(std::move(state)) && !live) TRY(job.forget());
  std::vector<Finding> findings;
  if (live) {
    // Room for what goes back into the machine's disks, which may have stopped for want of it. A container that was in use is
    // there until the machine runs.
    if (was_converting) TRY(job.remove_but({}));
    findings = TRY(restore_machine(*live, settings.say, [&](const LiveDisk& merged) {
      auto now = job.state();
      for (auto& disk : now.live->disks) disk.is_merging = disk.is_merging || disk.target == merged.target;
      (void)job.save(std::move(now));  // without it one overlay may be left, and named
    }));
  }
  TRY(job.remove());
  return findings;
}

Result<Report> roll_back(const std::string& name, const Settings& settings) {
  auto job = TRY(Job::open(settings.folder, name));
  const auto phase = job.state().phase;
  if (phase == Phase::kCommitted || phase == Phase::kCommitting)
    return fail(VIR_ERR_OPERATION_INVALID, quote(name) +
                                               " was committed; there is nothing to go back to. "
                                               "'virt-userns-convert back' makes a VM of it");
  Report report{name, {}, "rolled back"};
  for (const auto& disk : job.state().disks)
    for (const auto& image : disk.chain)
      if (auto same = check_unchanged(image); !same)
        report.findings.push_back({Severity::kNote, "disk '" + disk.target + "'", same.error().text, ""});
  const bool is_live = job.state().live.has_value();
  for (const auto& back : job.state().backs)
    if (::access(back.c_str(), F_OK) == 0)
      return fail(VIR_ERR_OPERATION_INVALID, "the disks of the machine in " + quote(back) +
                                                 ", which 'back' has made, lie on what would be taken away: remove "
                                                 "that machine first, or keep it and 'commit'");
  for (auto& finding : TRY(undo_job(job, settings))) report.findings.push_back(std::move(finding));
  report.findings.push_back(
      {Severity::kNote, "container '" + name + "'",
       is_live ? "is gone with all that was made for it"
               : "is gone with all that was made for it; the disks of the machine were never written",
       ""});
  return report;
}

Result<Report> commit_conversion(const std::string& name, const Settings& settings, const std::string& workplace) {
  auto job = TRY(Job::open(settings.folder, name));
  auto state = job.state();
  if (state.phase == Phase::kCommitted)
    return fail(VIR_ERR_OPERATION_INVALID, quote(name) + " was committed already");
  if (state.phase != Phase::kConverted && state.phase != Phase::kCommitting)
    return fail(VIR_ERR_OPERATION_INVALID, "the conversion of " + quote(name) +
                                               " was cut short; run it again, or 'virt-userns-convert rollback " +
                                               name + "'");
  if (TRY(look_up_domain(state.uri, state.domain_uuid)) == DomainState::kMissing)
    return fail(VIR_ERR_OPERATION_INVALID, "container " + quote(name) + " is not defined any more");
  if (state.mode == Mode::kInPlace) TRY(leave_disks(job, settings, workplace));
  // What is needed no more goes first: once it says that it is done nobody looks for it.
  std::vector<std::string> kept{"originals", "root", "root.img"};
  for (const auto& place : state.places) kept.push_back(own_name(place));
  TRY(job.remove_but(kept));
  state.phase = Phase::kCommitted;
  TRY(job.save(state));
  Report report{name,
                {{Severity::kNote, "container '" + name + "'", "needs the disks of the machine no more",
                  "keep them for 'virt-userns-convert back', or remove them with the machine"}},
                "committed"};
  if (state.live)
    for (const auto& disk : state.live->disks)
      report.findings.push_back({Severity::kNote, "disk '" + disk.target + "'",
                                 "of the machine is the overlay " + quote(disk.overlay) + " and what that lies on",
                                 ""});
  return report;
}

}  // namespace virtuserns::convert
