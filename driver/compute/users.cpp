#include "driver/compute/users.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>

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

// A process that ends meanwhile has nothing open.
bool leads_to(const std::string& folder, dev_t device) {
  const auto files = list_directory(folder);
  if (!files) return false;
  for (const auto& file : *files) {
    struct stat found {};
    if (::stat((folder + "/" + file).c_str(), &found) == 0 && S_ISBLK(found.st_mode) && found.st_rdev == device)
      return true;
  }
  return false;
}

// By a descriptor, of which each thread may have its own (unshare(2), CLONE_FILES), or by a mapping of one that is closed.
bool has_open(const std::string& process, dev_t device) {
  if (leads_to(process + "/map_files", device)) return true;
  const auto threads = list_directory(process + "/task");
  if (!threads) return false;
  return std::any_of(threads->begin(), threads->end(), [&](const std::string& thread) {
    return leads_to(process + "/task/" + thread + "/fd", device);
  });
}

}  // namespace

Result<std::optional<DeviceUser>> find_user(const std::string& device, const IdRange& ids) {
  struct stat node {};
  if (::stat(device.c_str(), &node) != 0) {
    if (errno == ENOENT) return std::optional<DeviceUser>();  // gone, and nobody has it
    return sys_fail("look at " + quote(device));
  }
  for (const auto& name : TRY(list_directory("/proc"))) {
    const auto pid = parse_number<pid_t>(name);
    const auto process = "/proc/" + name;
    if (!pid || !is_of(process, ids) || !has_open(process, node.st_rdev)) continue;
    const auto comm = read_kernel_file(process + "/comm");
    return std::optional(DeviceUser{*pid, comm ? printable(trim(*comm), 32) : ""});
  }
  return std::optional<DeviceUser>();
}

}  // namespace virtuserns::compute
