#include "driver/controller/outer.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "conf/base/text.h"
#include "driver/controller/protocol.h"
#include "driver/kernel/clone.h"

namespace virtuserns::controller {

namespace {

constexpr int kNotInstalled = 127;  // as a shell says it
constexpr std::size_t kMaxSaid = 1024;

IdMapLines outer_lines(const IdMapLines& lines, std::uint32_t own) {
  auto ranges = host_ranges(lines);
  std::sort(ranges.begin(), ranges.end());
  IdMapLines outer = {{0, own, 1}};
  for (const auto& range : ranges) {
    const auto first = static_cast<std::uint32_t>(range.first), count = static_cast<std::uint32_t>(range.count);
    auto& last = outer.back();
    if (outer.size() > 1 && last.outside + last.count == first)
      last.count += count;
    else
      outer.push_back({first, first, count});
  }
  return outer;
}

// newuidmap or newgidmap: waits for a byte, so that there is a namespace to be mapped.
class Mapper {
 public:
  Mapper(const char* program, const char* file, const IdMapLines& lines)
      : program_(program), file_(file), lines_(lines) {}

  Result<void> begin(pid_t target) {
    int pair[2];
    if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
    const Fd go(pair[0]);
    go_ = Fd(pair[1]);
    if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
    said_ = Fd(pair[0]);
    const Fd says(pair[1]);
    std::vector<std::string> words = {program_, std::to_string(target)};
    for (const auto& line : lines_)
      for (const auto number : {line.inside, line.outside, line.count}) words.push_back(std::to_string(number));
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    auto cloned = TRY(kernel::clone_process({0, nullptr, SIGCHLD}), program_);
    if (cloned.pid == 0) {
      go_.reset();
      char byte = 0;
      if (::read(go.get(), &byte, 1) != 1 || ::dup2(says.get(), 1) < 0 || ::dup2(says.get(), 2) < 0) ::_exit(1);
      ::execvp(program_, argv.data());
      ::_exit(kNotInstalled);
    }
    pid_ = cloned.pid;
    return {};
  }

  void go() { (void)!::write(go_.get(), "", 1); }

  Result<void> wait() {
    std::array<char, kMaxSaid> text;
    std::string said;
    for (ssize_t size; (size = ::read(said_.get(), text.data(), text.size())) > 0;)
      said.append(text.data(), std::min(static_cast<std::size_t>(size), kMaxSaid - said.size()));
    int status = 0;
    if (::waitpid(pid_, &status, 0) != pid_) return sys_fail(std::string("wait for ") + program_);
    if (status == 0) return {};
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNotInstalled)
      return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                  std::string(program_) +
                      " is not installed, without which no ordinary user may map ids: install package uidmap");
    if (WIFSIGNALED(status))
      return fail(VIR_ERR_OPERATION_FAILED,
                  std::string(program_) + " was killed by signal " + std::to_string(WTERMSIG(status)));
    return fail(VIR_ERR_OPERATION_FAILED, std::string(program_) + " refuses: " + printable(trim(said)) + "; " +
                                              file_ + " must have lines of yours for " + wanted());
  }

 private:
  std::string wanted() const {
    std::string text;
    for (std::size_t i = 1; i < lines_.size(); ++i)
      text += (i > 1 ? ", " : "") + std::to_string(lines_[i].outside) + "-" +
              std::to_string(std::uint64_t{lines_[i].outside} + lines_[i].count - 1);
    return text;
  }

  const char *program_, *file_;
  const IdMapLines& lines_;
  Fd go_, said_;
  pid_t pid_ = 0;
};

Result<void> make_namespace(const IdMaps& maps) {
  Mapper users("newuidmap", "/etc/subuid", maps.uid), groups("newgidmap", "/etc/subgid", maps.gid);
  // Both before there is a namespace: they have to come from outside.
  TRY(users.begin(::getpid()));
  TRY(groups.begin(::getpid()));
  if (::unshare(CLONE_NEWUSER) != 0) return sys_fail("make a user namespace");
  users.go();
  groups.go();
  auto mapped = users.wait();
  auto mapped_groups = groups.wait();
  TRY(std::move(mapped));
  return mapped_groups;
}

Result<void> offer_again(std::span<const std::uint8_t> bytes) {
  Fd file(::memfd_create("virtuserns-plan", 0));
  if (!file) return sys_fail("memfd_create");
  if (::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
      ::lseek(file.get(), 0, SEEK_SET) != 0)
    return sys_fail("hand on the plan");
  if (file.get() == kPlanFd) {
    (void)file.release();
    return {};
  }
  if (::dup2(file.get(), kPlanFd) < 0) return sys_fail("hand on the plan");
  return {};
}

}  // namespace

IdMaps outer_maps(const LaunchPlan& plan, std::uint32_t own_uid, std::uint32_t own_gid) {
  for (const auto& step : plan.from_parent)
    if (const auto* map = std::get_if<IdMapStep>(&step))
      return {outer_lines(map->maps.uid, own_uid), outer_lines(map->maps.gid, own_gid)};
  return {outer_lines({}, own_uid), outer_lines({}, own_gid)};
}

Error enter_outer_namespace(const LaunchPlan& plan, std::span<const std::uint8_t> plan_bytes, char* const* argv) {
  const auto maps = outer_maps(plan, ::geteuid(), ::getegid());
  auto made = make_namespace(maps);
  if (made) made = offer_again(plan_bytes);
  if (!made) return std::move(made).error();
  ::execv("/proc/self/exe", argv);
  return sys_fail("execute the controller again");
}

}  // namespace virtuserns::controller
