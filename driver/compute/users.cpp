#include "driver/compute/users.h"

#include <dirent.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::compute {
namespace {

// By its real user, which is one of the container's whatever it runs; not by the owner of the directory, which may be another.
bool is_of(const std::string& process, const IdRange& ids) {
  const auto status = read_kernel_file(process + "/status");
  if (!status) return false;
  for (const auto line : split(*status, '\n')) {
    const auto words = split_blanks(line);
    if (words.size() < 2 || words.front() != "Uid:") continue;
    const auto user = parse_number<std::uint32_t>(words[1]);
    return user && *user >= ids.first && *user - ids.first < ids.count;
  }
  return false;
}

// Instances of one project may have the same ids; our driver's control groups are named by whose they are.
bool is_of_another(const std::string& process, const std::string& uuid) {
  constexpr std::string_view kGroup = "virtuserns-";
  const auto groups = read_kernel_file(process + "/cgroup");
  return groups && groups->find(kGroup) != std::string::npos &&
         groups->find(std::string(kGroup) + uuid) == std::string::npos;
}

// What ends meanwhile has nothing open; what may not be looked into is an error, and not something that has nothing.
bool has_ended(const Error& error) { return error.sys_errno == ENOENT || error.sys_errno == ESRCH; }

// An instance may have millions of files open, each in thousands of threads, and is nobody's to destroy as long as they are looked at.
constexpr auto kPatience = std::chrono::seconds(10);

struct Wanted {
  dev_t device = 0;
  std::chrono::steady_clock::time_point deadline;
};

Result<bool> leads_to(const std::string& folder, const Wanted& wanted) {
  const auto files = list_directory(folder);
  if (!files && has_ended(files.error())) return false;
  if (!files) return files.error();
  for (const auto& file : *files) {
    struct stat found {};
    if (::stat((folder + "/" + file).c_str(), &found) == 0 && S_ISBLK(found.st_mode) &&
        found.st_rdev == wanted.device)
      return true;
    if (std::chrono::steady_clock::now() > wanted.deadline)
      return fail(
          VIR_ERR_RESOURCE_BUSY,
          "the instance has so many files open that they cannot be looked at: end what has them there, and try "
          "again; the volume stays attached");
  }
  return false;
}

// Where the kernel cannot say so, each is looked at for itself.
bool share_files(pid_t thread, pid_t other) { return ::syscall(SYS_kcmp, thread, other, KCMP_FILES, 0UL, 0UL) == 0; }

// By a descriptor, of which each thread may have its own (unshare(2), CLONE_FILES), or by a mapping of one that is closed.
Result<bool> has_open(const std::string& process, const Wanted& wanted) {
  if (TRY(leads_to(process + "/map_files", wanted))) return true;
  const auto threads = list_directory(process + "/task");
  if (!threads && has_ended(threads.error())) return false;
  if (!threads) return threads.error();
  pid_t before = 0;
  for (const auto& name : *threads) {
    const auto thread = parse_number<pid_t>(name).value_or(0);
    if (before != 0 && share_files(before, thread)) continue;
    if (TRY(leads_to(process + "/task/" + name + "/fd", wanted))) return true;
    before = thread;
  }
  return false;
}

}  // namespace

Result<std::optional<DeviceUser>> find_user(const std::string& device, const std::string& uuid, const IdRange& ids) {
  struct stat node {};
  if (::stat(device.c_str(), &node) != 0) {
    if (errno == ENOENT) return std::optional<DeviceUser>();  // gone, and nobody has it
    return sys_fail("look at " + quote(device));
  }
  const Wanted wanted{node.st_rdev, std::chrono::steady_clock::now() + kPatience};
  for (const auto& name : TRY(list_directory("/proc"))) {
    const auto pid = parse_number<pid_t>(name);
    const auto process = "/proc/" + name;
    if (!pid || !is_of(process, ids) || is_of_another(process, uuid)) continue;
    if (!TRY(has_open(process, wanted))) continue;
    const auto comm = read_kernel_file(process + "/comm");
    return std::optional(DeviceUser{*pid, comm ? printable(trim(*comm), 32) : ""});
  }
  return std::optional<DeviceUser>();
}

}  // namespace virtuserns::compute
