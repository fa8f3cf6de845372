#include "driver/controller/confine.h"

#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/apparmor.h"
#include "driver/kernel/caps.h"

namespace virtuserns::controller {

namespace {

constexpr std::size_t kMaxUserFile = 4 * 1024 * 1024;

// A file that is there and cannot be used is not "no such user". One that is missing is; and an id needs no file.
Result<void> need_for_name(const char* what, const std::string& name, const Result<std::string>& file) {
  if (file || file.error().sys_errno == ENOENT || name.empty() || name.front() == '+') return {};
  return fail(VIR_ERR_CONFIG_UNSUPPORTED, std::string(what) + " " + quote(name) +
                                              " cannot be looked up in the container: " + file.error().text +
                                              "; repair the file, or give the id as '+1000'");
}

}  // namespace

void reset_signals() {
  // By the system calls: the C library hides its own signals 32 and 33, which may have been inherited ignored too.
  constexpr std::size_t kKernelSetBytes = 8;
  const char action[64] = {};  // struct sigaction of the kernel: SIG_DFL, no flags
  for (int signal = 1; signal <= 64; ++signal) ::syscall(SYS_rt_sigaction, signal, action, nullptr, kKernelSetBytes);
  const std::uint64_t none = 0;
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, kKernelSetBytes);
}

Result<void> make_session() {
  if (::setsid() < 0 && errno != EPERM) return sys_fail("make a session");
  return kernel::leave_session_keyring();
}

Result<void> set_limit(const RlimitStep& step) {
  const rlimit limit{step.soft, step.hard};
  if (::setrlimit(static_cast<__rlimit_resource>(step.resource), &limit) != 0)
    return sys_fail("set resource limit " + std::to_string(step.resource));
  return {};
}

Result<void> set_personality(const PersonalityStep& step) {
  if (::personality(step.persona) < 0) return sys_fail("set personality");
  return {};
}

Result<void> apply_apparmor(const LaunchPlan& plan, const DirFd& host_proc) {
  for (const auto& step : plan.inside)
    if (const auto* apparmor = std::get_if<ApparmorStep>(&step))
      TRY(kernel::set_exec_profile(host_proc, apparmor->profile),
          "take AppArmor profile " + quote(apparmor->profile) + " (is it loaded still?)");
  return {};
}

Result<Identity> read_identity(const WantedIdentity& wanted) {
  // A regular file of bounded size or nothing.
  const auto passwd = read_file("/etc/passwd", kMaxUserFile);
  const auto groups = read_file("/etc/group", kMaxUserFile);
  TRY(need_for_name(wanted.user_word, wanted.user, passwd));
  TRY(need_for_name(wanted.group_word, wanted.group, groups));
  return resolve_identity(wanted.user, wanted.group, passwd ? *passwd : std::string(),
                          groups ? *groups : std::string());
}

Result<void> Confinement::give_up_privileges() {
  constexpr std::uint64_t kSysAdmin = std::uint64_t{1} << CAP_SYS_ADMIN;
  const std::uint64_t keep = capabilities_ ? capabilities_->bounding : ~std::uint64_t{0};
  TRY(kernel::limit_bounding_set(keep));
  if (identity_) {
    if (::setgroups(identity_->groups.size(), identity_->groups.data()) != 0) return sys_fail("set groups");
    if (::setresgid(identity_->gid, identity_->gid, identity_->gid) != 0)
      return sys_fail("become group " + std::to_string(identity_->gid));
    if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return sys_fail("keep capabilities");
    if (::setresuid(identity_->uid, identity_->uid, identity_->uid) != 0)
      return sys_fail("become user " + std::to_string(identity_->uid));
  }
  if (capabilities_ && capabilities_->no_new_privs && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return sys_fail("set no_new_privs");
  // A filter without no_new_privs takes CAP_SYS_ADMIN (seccomp(2)): it is kept until the filter is in, then dropped.
  const bool is_user = identity_ && identity_->uid != 0;
  final_capabilities_ = is_user ? 0 : keep;
  TRY(kernel::limit_capabilities(final_capabilities_ | (seccomp_ ? kSysAdmin : 0)));
  // After the last change of ids, which clears it (prctl(2)); dropping capabilities does not.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return sys_fail("set death signal");
  return {};
}

// Last, because from here on the filter judges us as well, and nobody would answer for a call that it refuses: what is
// still to be made (capset, sendmsg, execve) cannot be denied (conf/system_calls.cpp).
Result<Fd> Confinement::install_filter(kernel::Refusals refusals) const {
  if (!seccomp_) return Fd();
  Fd listener = TRY(kernel::install_seccomp_filter(seccomp_->program,
                                                   seccomp_->is_logged ? refusals : kernel::Refusals::kAnswered));
  TRY(kernel::limit_capabilities(final_capabilities_));
  return listener;
}

}  // namespace virtuserns::controller
