// What an instance looks like that hangs, kept for whoever asks why.
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <set>
#include <tuple>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "conf/uuid.h"
#include "driver/compute/compute.h"

namespace virtuserns::compute {
namespace {

// What it had the rights to see is in it.
Result<void> check_private(const std::string& folder) {
  struct stat found {};
  if (::lstat(folder.c_str(), &found) != 0) return sys_fail("look at " + quote(folder));
  if (S_ISDIR(found.st_mode) && found.st_uid == ::geteuid() && (found.st_mode & 077) == 0) return {};
  return fail(VIR_ERR_OPERATION_DENIED,
              "dumps = " + quote(folder) + ": needs a directory of root's alone, mode 0700");
}

// Before it is begun: one that does not fit fills the file system of everybody else there first.
Result<void> check_space(const std::string& folder, std::uint64_t needed) {
  constexpr int kMib = 20;
  struct statvfs found {};
  if (::statvfs(folder.c_str(), &found) != 0) return sys_fail("look at the space of " + quote(folder));
  const auto available = std::uint64_t{found.f_bavail} * found.f_frsize;
  if (available >= needed) return {};
  return Error{VIR_ERR_OPERATION_FAILED, ENOSPC,
               "a dump of the instance's memory needs " + std::to_string(needed >> kMib) + " MiB, and " +
                   quote(folder) + " has " + std::to_string(available >> kMib) +
                   " MiB: remove dumps that nobody needs, or name another directory by dumps = in the configuration "
                   "of virtuserns-compute"};
}

// "<uuid>-20261127T083000Z.tar"; a second one within that second is "...Z-2.tar".
Result<std::string> name_dump(const std::string& folder, const std::string& uuid, std::string_view suffix) {
  const auto now = std::time(nullptr);
  tm parts{};
  char at[32];
  (void)::gmtime_r(&now, &parts);
  (void)std::strftime(at, sizeof at, "%Y%m%dT%H%M%SZ", &parts);
  const auto begin = folder + "/" + uuid + "-" + at;
  for (int number = 1; number < 1000; ++number) {
    const auto path = begin + (number == 1 ? "" : "-" + std::to_string(number)) + std::string(suffix);
    if (::access(path.c_str(), F_OK) != 0) return path;
  }
  return fail(VIR_ERR_RESOURCE_BUSY, "a thousand dumps of the instance were made within this second");
}

// Until `kept` are left: of the instance that has the most the oldest goes, so that who asks for many loses his own. Others' files are none
// of ours to remove.
Result<void> prune(const std::string& folder, std::size_t kept) {
  using Dump = std::tuple<time_t, long, std::string>;  // of when, and its path
  std::map<std::string, std::set<Dump>> dumps;         // by instance
  std::size_t count = 0;
  for (const auto& name : TRY(list_directory(folder))) {
    struct stat found {};
    const auto path = folder + "/" + name, uuid = name.substr(0, 36);
    const bool is_ours = name.size() > 37 && parse_uuid(uuid) && name[36] == '-';
    if (!is_ours || ::lstat(path.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) continue;
    dumps[uuid].emplace(found.st_mtim.tv_sec, found.st_mtim.tv_nsec, path);
    ++count;
  }
  for (; count > kept; --count) {
    auto& most = std::max_element(dumps.begin(), dumps.end(), [](const auto& a, const auto& b) {
                   const auto &x = a.second, &y = b.second;
                   // Of those that have as many, the one whose oldest is older.
                   return x.size() != y.size() ? x.size() < y.size() : !x.empty() && *y.begin() < *x.begin();
                 })->second;
    const auto path = std::get<std::string>(*most.begin());
    if (::unlink(path.c_str()) != 0) return sys_fail("remove " + quote(path));
    most.erase(most.begin());
  }
  return {};
}

}  // namespace

Result<std::string> Compute::crash_dump(const std::string& uuid) {
  // Its user may ask as often as he likes, and an instance makes its dump last. Those who wait here are no more than there are instances,
  // and not all that the adapter and its client serve at once.
  Undo undo;
  {
    const std::lock_guard wanted_lock(mutex_);
    if (!wanted_dumps_.insert(uuid).second)
      return fail(VIR_ERR_RESOURCE_BUSY, "a dump of the instance is being made already: wait for that one");
  }
  undo.add([&] {
    const std::lock_guard wanted_lock(mutex_);
    wanted_dumps_.erase(uuid);
  });
  const std::lock_guard lock(dumps_);
  auto held = TRY(hold_ready(uuid));
  const auto facts = TRY(hypervisor_.facts(uuid));
  if (facts.state != PowerState::kRunning && facts.state != PowerState::kPaused)
    return fail(VIR_ERR_OPERATION_INVALID, "the instance does not run: there is nothing to be dumped");
  TRY(make_directories(settings_.dumps, 0700));
  TRY(check_private(settings_.dumps));
  const auto style = guests_.dump_style();
  if (style.has_memory) TRY(check_space(settings_.dumps, facts.max_memory_kib * 1024));
  const auto path = TRY(name_dump(settings_.dumps, uuid, style.suffix));
  {
    const std::lock_guard dumped_lock(mutex_);
    TRY(check_not_doomed_locked(uuid));
    dumped_ = uuid;
  }
  auto dumped = hypervisor_.dump(uuid, path, style.flags);
  {
    const std::lock_guard dumped_lock(mutex_);
    dumped_.clear();
  }
  TRY(std::move(dumped));
  if (const auto pruned = prune(settings_.dumps, settings_.dumps_kept); !pruned)
    log_warning("compute", "old dumps stay: " + pruned.error().text);
  return path;
}

}  // namespace virtuserns::compute
