#include "tools/convert/way_back.h"

#include <libvirt/virterror.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "conf/base/loop.h"
#include "conf/base/text.h"
#include "tools/convert/connection.h"
#include "tools/convert/map_domain.h"
#include "xml/writer.h"

namespace virtuserns::convert {
namespace {

constexpr std::chrono::milliseconds kLookAgain{100};
// What a qcow2 of libvirt's making has before anything is written to it: header, reference counts, the first table.
constexpr off_t kEmptyOverlay = 4 * 65536;

Finding left(const LiveMachine& live, const LiveDisk& disk, const std::string& why) {
  return {Severity::kLoss, "machine '" + live.name + "'", "keeps the overlay " + quote(disk.overlay) + ": " + why,
          "while it runs: virsh blockcommit " + live.name + " " + disk.target + " --active --pivot"};
}

// One that was asked to shut down cannot be asked to stay.
Result<void> await_end(const Domain& domain, const LiveMachine& live) {
  const auto deadline = Loop::now_ms() + std::uint64_t{live.limit_s} * 1000;
  while (Loop::now_ms() < deadline && TRY(is_active(domain))) std::this_thread::sleep_for(kLookAgain);
  return {};
}

// False: it ran already.
Result<bool> start_again(const Domain& domain, const LiveMachine& live) {
  if (TRY(is_active(domain))) return false;
  if (::virDomainCreate(domain.get()) == 0) return true;
  const auto error = last_error("start machine " + quote(live.name) + " again");
  return TRY(is_active(domain)) ? Result<bool>(true) : Result<bool>(error);
}

enum class Use { kNone, kTop, kBelow };

Result<Use> use_of(const Domain& domain, const LiveDisk& disk, unsigned flags) {
  const auto text = TRY(read_xml(domain, flags));
  for (const auto& known : TRY(read_kvm_domain(text)).disks)
    if (known.source == disk.overlay) return Use::kTop;
  return text.find("='" + xml::escape_attribute(disk.overlay) + "'") == std::string::npos ? Use::kNone : Use::kBelow;
}

// What is in the overlay goes into the disk below it, and the machine onto that.
Result<void> merge(const Domain& domain, const LiveDisk& disk) {
  const auto* target = disk.target.c_str();
  virDomainBlockJobInfo job{};
  const int count = ::virDomainGetBlockJobInfo(domain.get(), target, &job, 0);
  if (count < 0) return last_error("look for block jobs");
  if (count > 0 && job.type != VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT)
    return fail(VIR_ERR_OPERATION_INVALID, "it has another block job");
  if (count == 0 && ::virDomainBlockCommit(domain.get(), target, nullptr, nullptr, 0,
                                           VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | VIR_DOMAIN_BLOCK_COMMIT_SHALLOW) != 0)
    return last_error("commit it");
  while (::virDomainBlockJobAbort(domain.get(), target, VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) != 0) {
    // Said until all of it is in the disk below.
    if (::virGetLastErrorCode() != VIR_ERR_BLOCK_COPY_ACTIVE) return last_error("commit it");
    std::this_thread::sleep_for(kLookAgain);
  }
  return {};
}

// Nobody uses it; and yet it may be all that there is of what the machine last wrote.
bool has_data(const LiveDisk& disk) {
  struct stat st {};
  return ::stat(disk.overlay.c_str(), &st) == 0 && st.st_size > kEmptyOverlay;
}

// The reason why it stays, or nothing.
Result<std::string> remove_overlay(const Domain& domain, const LiveDisk& disk,
                                   const std::function<void(const LiveDisk&)>& merging) {
  bool is_merged = disk.is_merging;
  if (TRY(is_active(domain))) {
    const auto use = TRY(use_of(domain, disk, 0));
    if (use == Use::kBelow) return std::string("something lies on top of it");
    if (use == Use::kTop) {
      merging(disk);
      if (auto merged = merge(domain, disk); !merged) return merged.error().text;
      is_merged = true;
    }
    if (TRY(use_of(domain, disk, 0)) != Use::kNone) return std::string("libvirt has not let go of it");
  }
  if (TRY(use_of(domain, disk, VIR_DOMAIN_XML_INACTIVE)) != Use::kNone)
    return std::string("only of a machine that runs it can be put back into the disk below");
  if (!is_merged && has_data(disk))
    return std::string("the machine is on another disk now, and what it wrote before is in there");
  if (::unlink(disk.overlay.c_str()) != 0 && errno != ENOENT) return sys_fail("remove it").text;
  return std::string();
}

// One whose overlay found no room was paused by qemu, and is not woken up by the room that there is now.
Result<void> wake_up(const Domain& domain, const LiveMachine& live, std::vector<Finding>& findings) {
  int state = VIR_DOMAIN_NOSTATE, reason = 0;
  if (::virDomainGetState(domain.get(), &state, &reason, 0) != 0) return last_error("look at " + quote(live.name));
  if (state != VIR_DOMAIN_PAUSED) return {};
  const bool is_ours = reason == VIR_DOMAIN_PAUSED_IOERROR && ::virDomainResume(domain.get()) == 0;
  findings.push_back(
      is_ours ? Finding{Severity::kNote, "machine '" + live.name + "'",
                        "was paused, as its disk had no room, and goes on", ""}
              : Finding{Severity::kLoss, "machine '" + live.name + "'", "is paused", "virsh resume " + live.name});
  return {};
}

}  // namespace

Result<void> check_way_back(const LiveMachine& live) {
  const auto connection = TRY(open_connection(live.uri), "machine " + quote(live.name));
  const auto domain = TRY(find_domain(connection, live.uuid));
  for (const auto& disk : live.disks) {
    if (::access(disk.overlay.c_str(), F_OK) != 0 || disk.is_merging) continue;
    if (!domain)
      return fail(VIR_ERR_OPERATION_INVALID,
                  "machine " + quote(live.name) +
                      " is not defined any more: define it again, or keep the container by 'commit'");
    if (!live.is_stopped || TRY(is_active(domain))) continue;
    if (TRY(use_of(domain, disk, VIR_DOMAIN_XML_INACTIVE)) == Use::kNone)
      return fail(VIR_ERR_OPERATION_INVALID,
                  "machine " + quote(live.name) + " is defined without " + quote(disk.overlay) +
                      ", which has what it wrote last, and would start without that: define it with it");
  }
  if (!domain && live.is_stopped)
    return fail(VIR_ERR_OPERATION_INVALID,
                "machine " + quote(live.name) +
                    " is not defined any more: define it again, or keep the container by 'commit'");
  return {};
}

Result<std::vector<Finding>> restore_machine(const LiveMachine& live,
                                             const std::function<void(const std::string&)>& say,
                                             const std::function<void(const LiveDisk&)>& merging) {
  std::vector<Finding> findings;
  const auto connection = TRY(open_connection(live.uri), "machine " + quote(live.name));
  const auto domain = TRY(find_domain(connection, live.uuid));
  if (!domain) {
    for (const auto& disk : live.disks)
      if (::access(disk.overlay.c_str(), F_OK) == 0)
        findings.push_back(left(live, disk, "its definition is gone, and who uses it is not known"));
    return findings;
  }
  for (const auto& disk : live.disks) TRY(await_jobs(domain, disk.target), "machine " + quote(live.name));
  if (live.is_stopped) {
    say("starting machine " + quote(live.name) + " again");
    TRY(await_end(domain, live));
    const bool is_new = TRY(start_again(domain, live));
    findings.push_back({Severity::kNote, "machine '" + live.name + "'",
                        is_new ? "runs again, with what its disks had when it was stopped" : "runs", ""});
  }
  for (const auto& disk : live.disks) {
    say("putting overlay " + quote(disk.overlay) + " into the disk below");
    if (auto why = TRY(remove_overlay(domain, disk, merging), "overlay " + quote(disk.overlay)); !why.empty())
      findings.push_back(left(live, disk, why));
  }
  // It may have gone off after all.
  if (live.is_stopped) (void)TRY(start_again(domain, live));
  TRY(wake_up(domain, live, findings));
  return findings;
}

}  // namespace virtuserns::convert
