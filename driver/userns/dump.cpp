// Bundles of domains that run (virDomainCoreDump): made by a program of its own (driver/controller/dump.h), put where they are wanted.
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "conf/uuid.h"
#include "driver/userns/backend.h"
#include "driver/userns/launch.h"
#include "xml/domain.h"

namespace virtuserns::userns {
namespace {

constexpr int kDumpTimeoutMs = 30'000;

// A device or a FIFO is never replaced, a link never followed.
Result<void> check_target(const std::string& to) {
  if (!to.starts_with('/') || to.ends_with('/'))
    return fail(VIR_ERR_INVALID_ARG, "the file for a dump needs an absolute path, not " + quote(to));
  struct stat found {};
  if (::lstat(to.c_str(), &found) != 0 || S_ISREG(found.st_mode)) return {};
  return fail(VIR_ERR_INVALID_ARG, quote(to) + " is no regular file: name another for the dump");
}

std::string name_of_hierarchy(const CgroupHierarchy& hierarchy) {
  return hierarchy.is_v2 ? "unified" : hierarchy.mount.substr(hierarchy.mount.rfind('/') + 1);
}

}  // namespace

controller::DumpAsk Backend::dump_ask(const DomainDef& live, pid_t init) const {
  controller::DumpAsk ask;
  ask.name = live.name;
  ask.uuid = format_uuid(live.uuid);
  ask.definition = xml::format_domain(live, xml::FormatKind::kActive);
  ask.init_pid = static_cast<std::uint64_t>(init);
  ask.daemon_pid = static_cast<std::uint64_t>(::getpid());
  ask.at = static_cast<std::uint64_t>(std::time(nullptr));
  for (const auto& console : live.consoles)
    if (!console.log_file.empty() && ask.console_log.empty()) ask.console_log = console.log_file;
  for (const auto& hierarchy : host_.hierarchies) {
    const auto path = group_path(live, config_, scope_group_of(live.uuid), hierarchy);
    ask.groups.push_back({name_of_hierarchy(hierarchy), hierarchy.mount, path});
  }
  return ask;
}

// The status says beforehand whose pause it is, so that one in which the daemon dies is ended by the next.
Result<void> Backend::pause_for_dump(const Job& job, const RunPtr& run) {
  job.look()->dump_pause = DumpPause::kOurs;
  save_status(job.domain);
  auto paused = freeze(job, run, true);
  if (!paused) job.look()->dump_pause = DumpPause::kLeft;  // it may come yet
  return paused;
}

Result<void> Backend::resume_after_dump(const Job& job, const RunPtr& run) {
  auto resumed = freeze(job, run, false);
  if (!resumed) job.look()->dump_pause = DumpPause::kLeft;
  return resumed;
}

void Backend::resume_after_dump_later(const RunPtr& run) {
  housekeeper_.submit([this, run] {
    const auto job = take_job(run->uuid);
    if (!job) return;
    {
      const Locked domain = job->look();
      if (domain->run != run || domain->dump_pause != DumpPause::kLeft || domain->state != VIR_DOMAIN_PAUSED) return;
    }
    if (const auto resumed = resume_after_dump(*job, run); !resumed)
      log_warning("userns", "domain " + format_uuid(run->uuid) +
                                " is still paused for a dump that has ended: " + resumed.error().text);
  });
}

// Without VIR_DUMP_LIVE the domain stands still meanwhile, as libvirt has it.
Result<void> Backend::core_dump(const Caller&, const Uuid& uuid, const std::string& to, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DUMP_LIVE, "virDomainCoreDump"));
  if (paths_.is_session)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                "no dumps are made of a session's domain: its processes are the user's own to look at");
  TRY(check_target(to));
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  const auto [ask, is_paused] = [&] {
    const Locked domain = job.look();
    return std::pair(dump_ask(domain->def, domain->boot.init_pid), domain->state == VIR_DOMAIN_PAUSED);
  }();
  const auto slash = to.rfind('/') + 1;
  // What a daemon that died has left has this name, and nothing of anybody else's.
  const auto temporary = to.substr(0, slash) + "." + to.substr(slash) + ".virtuserns-dump";
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT) return sys_fail("remove " + quote(temporary));
  const Fd output(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!output) return sys_fail("make " + quote(temporary));
  Undo undo;
  undo.add([&] { (void)::unlink(temporary.c_str()); });
  const bool stands_still = !is_paused && (flags & VIR_DUMP_LIVE) == 0;
  if (stands_still) TRY(pause_for_dump(job, run));
  auto dumped = dump_domain(paths_.controller, ask, output, run->log_path, kDumpTimeoutMs,
                            [&] { return job.domain->destroys_waiting > 0; });
  if (stands_still) TRY(resume_after_dump(job, run));
  TRY(std::move(dumped), "dump domain " + quote(ask.name));
  if (::fsync(output.get()) != 0) return sys_fail("write " + quote(temporary));
  if (::rename(temporary.c_str(), to.c_str()) != 0) return sys_fail("name the dump " + quote(to));
  undo.commit();
  append_to_log(run->log_path, "a dump was written to " + quote(to));
  return {};
}

}  // namespace virtuserns::userns
