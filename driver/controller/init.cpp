// The child between clone and exec: container root of new namespaces, and the only process in them.
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conf/base/text.h"
#include "driver/controller/boot.h"
#include "driver/controller/child_links.h"
#include "driver/controller/confine.h"
#include "driver/controller/plug.h"
#include "driver/controller/plug_mounts.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/seccomp.h"

namespace virtuserns::controller {

namespace {

class Init {
 public:
  Init(const LaunchPlan& plan, InitEnds& ends, const std::vector<Fd>& passed_files)
      : plan_(plan), ends_(ends), channel_(ends.channel.get()), passed_files_(passed_files) {}

  // Returns only with an error: success is exec.
  Result<void> run() {
    reset_signals();
    // What needs nobody else is done before the gate, in the time that the controller takes for its part. Whether ids are
    // mapped when the network namespace is made decides only who owns files of a /sys that is read-only.
    TRY(make_namespaces());
    TRY(apply_all(true));
    TRY(await(GoOn::kGateIsOpen));
    TRY(become_root());
    TRY(apply_all(false));
    return fail(VIR_ERR_INTERNAL_ERROR, "the plan does not exec");
  }

 private:
  // Waits, and dies with the controller: to be set again whenever the ids have changed, which clears it.
  Result<void> await(GoOn wanted) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return sys_fail("set death signal");
    const auto packet = TRY(recv_packet(channel_));
    if (packet.bytes.empty()) ::_exit(1);  // the controller is gone or has given up: nobody is left to tell
    if (TRY(xdr::decode_exact<std::uint32_t>(packet.bytes)) != static_cast<std::uint32_t>(wanted))
      return fail(VIR_ERR_INTERNAL_ERROR, "init is told things in a wrong order");
    return {};
  }

  static Result<void> become_root() {
    // 0 is the map's: a failure means that the map is not what the plan said.
    if (::setgroups(0, nullptr) != 0) return sys_fail("drop groups");
    if (::setresgid(0, 0, 0) != 0) return sys_fail("become group 0 of the container");
    if (::setresuid(0, 0, 0) != 0) return sys_fail("become user 0 of the container");
    ::umask(022);
    return {};
  }

  Result<void> make_namespaces() {
    if (::unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP) != 0)
      return sys_fail("make namespaces");
    if (::write(ends_.ready.get(), "", 1) != 1) return sys_fail("tell that there are namespaces");
    ends_.ready.reset();
    return {};
  }

  static bool is_alone(const InsideStep& step) {
    const auto* link = std::get_if<LinkUpStep>(&step);
    return (link && link->device == "lo") || std::holds_alternative<HostnameStep>(step);
  }

  Result<void> apply_all(bool alone) {
    for (const auto& step : plan_.inside)
      if (is_alone(step) == alone) TRY(std::visit([this](const auto& s) { return apply(s); }, step));
    return {};
  }

  Result<kernel::RouteSocket*> route() {
    if (!route_) route_.emplace(TRY(kernel::RouteSocket::open()));
    return &*route_;
  }

  Result<void> apply(const LinkUpStep& step) { return configure(*TRY(route()), step); }
  Result<void> apply(const AddressStep& step) { return configure(*TRY(route()), step); }
  Result<void> apply(const RouteStep& step) { return configure(*TRY(route()), step); }
  Result<void> apply(const HostnameStep& step) {
    if (::sethostname(step.name.data(), step.name.size()) != 0) return sys_fail("set hostname " + quote(step.name));
    return {};
  }

  Result<void> apply(const PivotStep&) {
    // Less privileged than the owner of the tree: in this copy the kernel locks every mount and its read-only and nodev
    // flags against us for ever (mount_namespaces(7)).
    if (::unshare(CLONE_NEWNS) != 0) return sys_fail("make a mount namespace");
    const auto loose = TRY(take_loose());
    // The copy of the tree's top is locked to the stage too and could not be pivoted to; a bind of it is not.
    if (::mount(kTreePath, kTreePath, nullptr, MS_BIND | MS_REC, nullptr) != 0) return sys_fail("bind the root");
    TRY(kernel::change_root(kTreePath), "enter the root");
    for (const auto& [mount, target, kind] : loose) TRY(attach_here(mount, target, kind), "attach " + quote(target));
    return {};
  }

  struct Loose {
    MountFd mount;
    std::string target;
    PlaceKind kind;
  };
  // Copies without the lock of what is set aside, with that of its flags.
  Result<std::vector<Loose>> take_loose() {
    std::vector<Loose> all;
    for (const auto& step : plan_.from_parent)
      if (is_loose(step))
        all.push_back({TRY(kernel::clone_mount(loose_path(all.size()), kernel::Depth::kWithMountsBelow)),
                       place_of(step), kind_of(step)});
    return all;
  }

  Result<void> apply(const ConsoleStep&) {
    TRY(make_session());
    const bool has_console = !plan_.consoles.empty();
    const char* path = has_console ? "/dev/console" : "/dev/null";
    const Fd console(::open(path, O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC));
    if (!console) return sys_fail(std::string("open '") + path + "'");
    if (has_console && ::ioctl(console.get(), TIOCSCTTY, 0) != 0)
      return sys_fail("make '/dev/console' the controlling terminal");
    for (int fd = 0; fd < 3; ++fd)
      if (::dup2(console.get(), fd) < 0) return sys_fail("make '/dev/console' stdio");
    has_stdio_ = true;
    return {};
  }

  Result<void> apply(const RlimitStep& step) { return set_limit(step); }
  Result<void> apply(const PersonalityStep& step) { return set_personality(step); }

  // These only take effect at exec, whatever their place in the plan.
  Result<void> apply(const CapabilitiesStep& step) {
    confinement_.set(step);
    return {};
  }
  Result<void> apply(const SeccompStep& step) {
    confinement_.set(step);
    return {};
  }
  Result<void> apply(const ApparmorStep&) { return {}; }  // the starter's
  Result<void> apply(const UserStep& step) {
    user_ = &step;
    return {};
  }

  Result<void> apply(const ExecStep& step) {
    if (!has_stdio_) TRY(apply(ConsoleStep{}));
    TRY(keep_only_passed(step.passed_files));
    // After it: a path below /proc/self/fd must not find a directory of the host that we still had open. /etc may be a link
    // to there as well.
    if (user_) confinement_.set(TRY(read_identity({"inituser", "initgroup", user_->user, user_->group})));
    if (::chdir(step.directory.empty() ? "/" : step.directory.c_str()) != 0)
      return sys_fail("enter " + quote(step.directory));
    TRY(confinement_.give_up_privileges());
    // Also notices a parent that died before the death signal was set: it cannot be asked by getppid here, which is
    // outside of the pid namespace.
    TRY(await(GoOn::kExec));
    // Made before the filter is in: behind it every refused call of ours, were it the C library's last words for want of
    // memory, would wait for the controller, which waits for us.
    const auto message = xdr::encode(ChildMessage(AboutToExec{}));
    const auto argv = pointers(step.argv), env = pointers(step.env);
    const Fd listener = TRY(confinement_.install_filter(kernel::Refusals::kNotified));
    const int file = listener.get();
    TRY(send_packet(channel_, message, std::span(&file, listener ? 1 : 0)));
    ::execve(step.path.c_str(), argv.data(), env.data());
    return sys_fail("exec " + quote(step.path));
  }

  // Descriptors 3.. become the passed ones; of all others only the channel is left, and exec closes it.
  Result<void> keep_only_passed(std::uint32_t count) {
    if (count > passed_files_.size())
      return fail(VIR_ERR_INTERNAL_ERROR, "the plan passes more files than were given");
    const int base = 3 + static_cast<int>(count);
    // Out of the way first: a source may have the number of a target.
    std::vector<int> high;
    for (std::uint32_t i = 0; i < count; ++i) {
      high.push_back(::fcntl(passed_files_[i].get(), F_DUPFD_CLOEXEC, base + 1));
      if (high.back() < 0) return sys_fail("pass files");
    }
    const int channel = ::fcntl(channel_, F_DUPFD_CLOEXEC, base + 1);
    if (channel < 0) return sys_fail("pass files");
    for (std::uint32_t i = 0; i < count; ++i)
      if (::dup2(high[i], 3 + static_cast<int>(i)) < 0) return sys_fail("pass files");
    if (channel != base && ::dup3(channel, base, O_CLOEXEC) < 0) return sys_fail("pass files");
    channel_ = base;
    if (::close_range(static_cast<unsigned>(base) + 1, ~0u, 0) != 0) return sys_fail("close files");
    return {};
  }

  static std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (const auto& text : texts) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
  }

  const LaunchPlan& plan_;
  InitEnds& ends_;
  int channel_;

 public:
  [[nodiscard]] int channel() const { return channel_; }

 private:
  const std::vector<Fd>& passed_files_;
  std::optional<kernel::RouteSocket> route_;
  bool has_stdio_ = false;
  const UserStep* user_ = nullptr;
  Confinement confinement_;
};

}  // namespace

void run_init(const LaunchPlan& plan, InitEnds& ends, const std::vector<Fd>& passed_files) {
  Init init(plan, ends, passed_files);
  const auto result = init.run();
  // Stays close-on-exec and open until here; the socket's end is the only thing left of the controller in here.
  (void)send_packet(init.channel(), xdr::encode(ChildMessage(to_wire(result.error()))));
  ::_exit(1);
}

}  // namespace virtuserns::controller
