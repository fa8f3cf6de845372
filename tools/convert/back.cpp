// A container becomes a VM again: its files on new disks that lie on top of the original ones, which have what a machine
// needs to boot.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/convert/back_xml.h"
#include "tools/convert/convert.h"
#include "tools/convert/domains.h"
#include "tools/convert/image_mount.h"
#include "tools/convert/machine.h"
#include "tools/convert/originals.h"
#include "tools/convert/rollback.h"
#include "tools/convert/target.h"
#include "tools/convert/tree.h"

namespace virtuserns::convert {
namespace {

constexpr const char *kWork = "work", *kOriginals = "originals";

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

// From when on a change is the container's own: the guest was edited last of all. Nothing to edit: all of it may be.
timespec born_at(const Job& job) {
  struct stat st {};
  return ::stat(job.path(kOriginals).c_str(), &st) == 0 ? st.st_mtim : timespec{};
}

Result<void> update(const Job& job, const DirFd& from, const DirFd& to, std::uint64_t disk_bytes,
                    const Settings& settings, std::vector<Finding>& findings) {
  settings.say("bringing the container's files back");
  // A file of the same size and time that was changed since has other contents maybe.
  const auto copied = TRY(update_tree(
                              from, to, 16 * disk_bytes, [](const CopyCount&) {}, born_at(job)),
                          "bring back the files");
  settings.say("brought back " + std::to_string(copied.entries) + " files");
  findings.insert(findings.end(), copied.findings.begin(), copied.findings.end());
  return {};
}

// Of a container in place: its volumes, with what a crash has left in their journals replayed on overlays that are
// thrown away.
Result<void> update_from_volumes(const Job& job, const DirFd& to, std::uint64_t disk_bytes, const Settings& settings,
                                 const std::string& workplace, std::vector<Finding>& findings) {
  const bool is_committed = job.state().phase == Phase::kCommitted;
  auto places = job.state().places;
  std::vector<JobDisk> volumes;
  for (auto& place : places) {
    const auto path = job.path(is_committed ? own_name(place) : overlay_name(place));
    std::vector<std::string> folders;
    for (const auto& disk : job.state().disks)
      for (const auto& image : disk.chain) folders.push_back(parent_of(image.path));
    place.volume.disk = place.volume.name;
    if (is_committed) place.volume.offset = 0;
    auto chain = TRY(read_chain(path, "qcow2", folders));
    volumes.push_back({place.volume.name, std::move(chain)});
  }
  auto disks = TRY(open_overlays(volumes, places, job.path(kWork), workplace));
  auto guest = TRY(GuestMount::mount(disks, places, Access::kWrite, workplace + "/container"));
  TRY(update(job, guest.root(), to, disk_bytes, settings, findings));
  TRY(guest.unmount());
  for (auto& [_, disk] : disks) TRY(disk.close());
  return {};
}

Result<void> update_from(const Job& job, const DirFd& to, std::uint64_t disk_bytes, const Settings& settings,
                         const std::string& workplace, std::vector<Finding>& findings) {
  if (job.state().mode == Mode::kInPlace)
    return update_from_volumes(job, to, disk_bytes, settings, workplace, findings);
  if (job.state().mode == Mode::kTree)
    return update(job, TRY(open_directory(job.path("root"))), to, disk_bytes, settings, findings);
  const Fd file(::open(job.path("root.img").c_str(), O_RDWR | O_CLOEXEC));
  struct stat st {};
  if (!file || ::fstat(file.get(), &st) != 0) return sys_fail("open " + quote(job.path("root.img")));
  TRY(kernel::lock_image(file, kernel::Access::kReadWrite), "open the container's image");
  const auto device = TRY(attach_part(file, 0, static_cast<std::uint64_t>(st.st_size), Access::kWrite));
  auto mounted =
      TRY(ImageMount::mount(device, Access::kWrite, workplace + "/container"), "mount the container's image");
  TRY(update(job, TRY(open_directory(workplace + "/container")), to, disk_bytes, settings, findings));
  return mounted.unmount();
}

// What the rules of the conversion changed becomes as it was; of a copy, because that uses the originals up.
Result<void> undo_rules(const Job& job, const DirFd& root, const std::string& copy, std::vector<Finding>& findings) {
  if (!has_originals(job.path(kOriginals))) return {};
  if (::mkdir(copy.c_str(), 0700) != 0) return sys_fail("make " + quote(copy));
  (void)TRY(copy_tree(TRY(open_directory(job.path(kOriginals))), TRY(open_directory(copy)), UINT64_MAX,
                      [](const CopyCount&) {}));
  auto undone = TRY(undo_edits(root, copy), "undo the edits");
  findings.insert(findings.end(), undone.begin(), undone.end());
  return {};
}

Result<std::vector<Finding>> fill_disks(const Job& job, const std::string& folder, const Settings& settings,
                                        const std::string& workplace) {
  DisksByName disks;
  std::uint64_t bytes = 0;
  for (const auto& disk : job.state().disks)
    for (const auto& image : disk.chain) TRY(check_unchanged(image), "the disk of the machine");
  for (const auto& disk : job.state().disks) {
    std::vector<Image> chain{TRY(make_overlay(folder + "/" + disk.target + ".qcow2", disk.chain.front()))};
    chain.insert(chain.end(), disk.chain.begin(), disk.chain.end());
    const auto& opened =
        disks.emplace(disk.target, TRY(OpenDisk::open(chain, Access::kWrite, workplace))).first->second;
    bytes += opened.size();
    for (const auto& image : disk.chain) TRY(check_unchanged(image));
  }
  std::vector<Finding> findings;
  {
    auto machine = TRY(GuestMount::mount(disks, job.state().places, Access::kWrite, workplace + "/machine"));
    TRY(update_from(job, machine.root(), bytes, settings, workplace, findings));
    TRY(undo_rules(job, machine.root(), job.path(kWork) + "/" + kOriginals, findings));
    TRY(machine.unmount());
  }
  for (auto& [_, disk] : disks) TRY(disk.close());
  return findings;
}

Result<void> check_ready(const Job& job, const std::string& name, const std::string& output) {
  const auto& state = job.state();
  if (state.phase != Phase::kConverted && state.phase != Phase::kCommitted)
    return fail(VIR_ERR_OPERATION_INVALID,
                quote(name) + " is not converted, or a command on it was cut short: run that again");
  if (TRY(look_up_domain(state.uri, state.domain_uuid)) == DomainState::kActive)
    return fail(VIR_ERR_OPERATION_INVALID, "the container runs; shut it off first");
  if (output.empty() || output.front() != '/' || output.back() == '/')
    return fail(VIR_ERR_INVALID_ARG, "--output needs the absolute path of a folder that is made");
  if (::access(output.c_str(), F_OK) == 0) return fail(VIR_ERR_OPERATION_FAILED, quote(output) + " is there already");
  return {};
}

}  // namespace

Result<Report> bring_back(const std::string& name, const std::string& output, const Settings& settings,
                          const std::string& workplace) {
  auto job = TRY(Job::open(settings.folder, name));
  TRY(check_ready(job, name, output));
  // Under another name until all of it is there: what a run that was cut short has left is known by it.
  const auto base = output.substr(output.rfind('/') + 1), partial = "." + base + "." + name + ".partial";
  const auto parent = TRY(open_directory(parent_of(output)));
  const auto folder = parent_of(output) + "/" + partial;
  const auto clear = [&]() -> Result<void> {
    TRY(remove_tree(TRY(open_directory(job.path("."))), kWork));
    return remove_tree(parent, partial);
  };
  TRY(clear());
  // Its disks lie on those of the machine: who takes these away has to know of it.
  if (job.state().live) {
    auto state = job.state();
    if (std::find(state.backs.begin(), state.backs.end(), output) == state.backs.end()) state.backs.push_back(output);
    TRY(job.save(std::move(state)));
  }
  for (const auto& path : {folder, job.path(kWork)})
    if (::mkdir(path.c_str(), 0700) != 0) return sys_fail("make " + quote(path));
  auto findings = fill_disks(job, folder, settings, workplace);
  auto written = !findings || job.state().source_xml.empty()
                     ? Result<void>()
                     : write_back_xml(job.state(), output, folder + "/" + name + ".xml");
  if (!findings || !written) {
    (void)clear();
    return findings ? std::move(written).error() : std::move(findings).error();
  }
  TRY(remove_tree(TRY(open_directory(job.path("."))), kWork));
  if (::renameat(parent.get(), partial.c_str(), parent.get(), base.c_str()) != 0)
    return sys_fail("rename to " + quote(output));
  if (::fsync(parent.get()) != 0) return sys_fail("write " + quote(output));
  Report report{name, std::move(*findings), "a machine again"};
  report.findings.push_back({Severity::kNote, "machine '" + name + "'",
                             "is in '" + output + "', on top of its original disks",
                             "define it by 'virsh define " + output + "/" + name + ".xml'"});
  return report;
}

}  // namespace virtuserns::convert
