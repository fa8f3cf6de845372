#include "driver/single.h"

#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/uuid.h"

namespace virtuserns {

namespace {

constexpr int kLeaveMs = 15'000;  // what it has begun to answer is answered first
constexpr int kPollMs = 20;

Result<void> write_lock(const Fd& lock, const std::string& path, const std::string& text) {
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), text.data(), text.size(), 0) < 0)
    return sys_fail("write " + quote(path));
  return {};
}

struct Holder {
  pid_t pid = 0;
  std::string directory;
};

// "<pid> <directory>"; nothing while it is being written.
Holder read_holder(const std::string& path) {
  const auto text = read_file(path, 8192);
  if (!text) return {};
  const auto line = trim(*text);
  const auto blank = line.find(' ');
  if (blank == std::string_view::npos) return {};
  return {parse_number<pid_t>(line.substr(0, blank)).value_or(0), std::string(line.substr(blank + 1))};
}

// Who holds the pid file of the same directory's place has lost the directory: we hold the file that is there now.
bool can_be_reached(const Holder& holder, const std::string& directory) {
  struct stat socket {};
  return holder.directory != directory && ::lstat((holder.directory + "/virtusernsd-sock").c_str(), &socket) == 0;
}

// Runs of former boots of the machine, of which nothing can be left.
void forget_other_boots(const Paths& paths) {
  const std::string boots = session_boots(paths);
  if (paths.driver_run.rfind('/') != boots.size() || !paths.driver_run.starts_with(boots)) return;
  const auto names = list_directory(boots);
  if (!names) return;
  for (const auto& name : *names) {
    const std::string path = boots + "/" + name;
    std::error_code ignored;
    if (path != paths.driver_run && parse_uuid(name)) std::filesystem::remove_all(path, ignored);
  }
}

}  // namespace

Result<Fd> take_pid_file(const std::string& path) {
  auto lock = lock_file(path);
  if (!lock && lock.error().code == VIR_ERR_RESOURCE_BUSY)
    return fail(VIR_ERR_RESOURCE_BUSY, "another virtusernsd is running (" + quote(path) + " is locked)");
  if (!lock) return lock.error();
  TRY(write_lock(*lock, path, std::to_string(::getpid()) + "\n"));
  return lock;
}

Result<Fd> take_domains(const Paths& paths, const std::string& directory) {
  TRY(make_directories(paths.driver_run, 0700));
  const std::string path = paths.driver_run + "/virtusernsd.lock";
  pid_t told = 0;
  for (int waited_ms = 0;; waited_ms += kPollMs) {
    auto lock = lock_file(path);
    if (lock) {
      TRY(write_lock(*lock, path, std::to_string(::getpid()) + " " + directory + "\n"));
      forget_other_boots(paths);
      return lock;
    }
    if (lock.error().code != VIR_ERR_RESOURCE_BUSY) return lock.error();
    const Holder holder = read_holder(path);
    if (holder.pid > 0 && can_be_reached(holder, directory))
      return fail(VIR_ERR_RESOURCE_BUSY, "another virtusernsd is running: process " + std::to_string(holder.pid) +
                                             ", whose sockets are in " + quote(holder.directory));
    if (waited_ms >= kLeaveMs)
      return fail(VIR_ERR_RESOURCE_BUSY, "another virtusernsd, process " + std::to_string(holder.pid) +
                                             ", does not leave, though its sockets are gone: end it");
    if (holder.pid > 0 && holder.pid != told) {
      log_warning("daemon", "process " + std::to_string(holder.pid) +
                                " is a virtusernsd whose sockets are gone: it is told to leave");
      ::kill(holder.pid, SIGTERM);
      told = holder.pid;
    }
    ::usleep(kPollMs * 1000);
  }
}

}  // namespace virtuserns
