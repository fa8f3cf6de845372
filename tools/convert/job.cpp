#include "tools/convert/job.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/convert/tree.h"

namespace virtuserns::convert {
namespace {

constexpr const char* kState = "state.json";
constexpr std::size_t kMaxName = 200;

std::string lock_path(const std::string& folder, const std::string& name) { return folder + "/." + name + ".lock"; }

// The lock goes with its job: one that was removed while we waited for it is not one.
Result<Fd> take_lock(const std::string& folder, const std::string& name) {
  const auto path = lock_path(folder, name);
  for (;;) {
    auto lock = TRY(lock_file(path), "another command works on " + quote(name));
    struct stat ours {
    }, there{};
    if (::fstat(lock.get(), &ours) == 0 && ::stat(path.c_str(), &there) == 0 && ours.st_ino == there.st_ino)
      return lock;
  }
}

}  // namespace

Result<void> check_job_name(const std::string& name) {
  const bool is_good =
      !name.empty() && name.size() <= kMaxName && name.front() != '.' &&
      std::none_of(name.begin(), name.end(), [](unsigned char c) { return c == '/' || c < 0x20 || c == 0x7f; });
  if (!is_good)
    return fail(VIR_ERR_INVALID_ARG, quote(name) + " is no name for a container; choose another with --name");
  return {};
}

bool Job::exists(const std::string& folder, const std::string& name) {
  struct stat st {};
  return ::lstat((folder + "/" + name).c_str(), &st) == 0;
}

std::vector<std::string> Job::list(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    auto name = entry.path().filename().string();
    if (check_job_name(name)) names.push_back(std::move(name));
  }
  return names;
}

Result<JobState> Job::look(const std::string& folder, const std::string& name) {
  return parse_state(TRY(read_file(folder + "/" + name + "/" + kState)));
}

Result<Job> Job::open(const std::string& folder, const std::string& name) {
  TRY(check_job_name(name));
  const auto missing = fail(VIR_ERR_NO_DOMAIN, "there is no conversion of " + quote(name) + " in " + quote(folder));
  if (!exists(folder, name)) return missing;
  Job job;
  job.folder_ = folder;
  job.name_ = name;
  job.path_ = folder + "/" + name;
  job.lock_ = TRY(take_lock(folder, name));
  if (!exists(folder, name)) {
    ::unlink(lock_path(folder, name).c_str());
    return missing;
  }
  const auto text = read_file(job.path(kState));
  // It died between the folder and its first state: nothing else was made yet.
  if (!text && text.error().sys_errno != ENOENT) return text.error();
  if (text) job.state_ = TRY(parse_state(*text), "read " + quote(job.path(kState)));
  return job;
}

Result<Job> Job::create(const std::string& folder, const std::string& name, const JobState& state) {
  TRY(check_job_name(name));
  TRY(make_directories(folder, 0700));
  Job job;
  job.folder_ = folder;
  job.name_ = name;
  job.path_ = folder + "/" + name;
  job.lock_ = TRY(take_lock(folder, name));
  // Not for others to look into: a tree has programs that are setuid for the container's root.
  if (::mkdir(job.path_.c_str(), 0700) != 0) return sys_fail("make " + quote(job.path_));
  const auto begin = [&]() -> Result<void> {
    TRY(sync_directory(folder));
    return job.save(state);
  };
  if (auto begun = begin(); !begun) {
    (void)job.remove();
    return std::move(begun).error();
  }
  return job;
}

Result<void> Job::save(JobState state) {
  TRY(write_atomic(path(kState), format_state(state)), "journal");
  state_ = std::move(state);
  return {};
}

Result<void> Job::forget() { return remove_durable(path(kState)); }

Result<void> Job::remove_but(const std::vector<std::string>& kept) {
  const auto dir = TRY(open_directory(path_));
  for (const auto& entry : TRY(list_directory(path_)))
    if (entry != kState && std::find(kept.begin(), kept.end(), entry) == kept.end())
      TRY(remove_tree(dir, entry), "in " + quote(path_));
  return {};
}

Result<void> Job::remove() {
  TRY(remove_but({}));
  TRY(forget());
  if (::rmdir(path_.c_str()) != 0) return sys_fail("remove " + quote(path_));
  TRY(sync_directory(folder_));
  ::unlink(lock_path(folder_, name_).c_str());
  return {};
}

}  // namespace virtuserns::convert
