// The steps that the controller takes as host root while the child waits at the gate.
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf/base/text.h"
#include "driver/controller/boot.h"
#include "driver/controller/child_links.h"
#include "driver/controller/tree.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/idmap.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

struct Wanted {
  bool proc = false, sys = false, mqueue = false, cgroup = false;
};

Wanted wanted_mounts(const LaunchPlan& plan) {
  Wanted wanted;
  for (const auto& step : plan.from_parent) {
    wanted.proc |= std::holds_alternative<ProcStep>(step);
    wanted.sys |= std::holds_alternative<SysStep>(step);
    wanted.mqueue |= std::holds_alternative<MqueueStep>(step);
    wanted.cgroup |= std::holds_alternative<CgroupMountStep>(step);
  }
  return wanted;
}

Result<void> await_ready(const Fd& ready) {
  char byte = 0;
  ssize_t got = 0;
  while ((got = ::read(ready.get(), &byte, 1)) < 0 && errno == EINTR) {
  }
  if (got != 1) return fail(VIR_ERR_OPERATION_FAILED, "init ended before it had made its namespaces");
  return {};
}

// In the helper: a file system takes its namespace from the process that makes it, procfs from the active pid
// namespace, which only a newly cloned process can be in.
Result<void> make_namespace_mounts(const Wanted& wanted, const Child& child, const SocketFd& channel) {
  constexpr std::uint64_t kAttributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  std::vector<MountFd> mounts;
  if (wanted.proc) mounts.push_back(TRY(kernel::make_filesystem("proc", {}, kAttributes)));
  TRY(await_ready(child.ready));
  TRY(kernel::enter_namespaces(child.pidfd, CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWCGROUP));
  if (wanted.sys) mounts.push_back(TRY(kernel::make_filesystem("sysfs", {}, kAttributes | MOUNT_ATTR_RDONLY)));
  if (wanted.mqueue) mounts.push_back(TRY(kernel::make_filesystem("mqueue", {}, kAttributes)));
  if (wanted.cgroup) mounts.push_back(TRY(kernel::make_filesystem("cgroup2", {}, kAttributes)));
  std::vector<int> files;
  for (const auto& mount : mounts) files.push_back(mount.get());
  return send_packet(channel.get(), xdr::encode(ChildMessage(AboutToExec{})), files);
}

[[noreturn]] void run_helper(const Wanted& wanted, const Child& child, const SocketFd& channel) {
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (auto made = make_namespace_mounts(wanted, child, channel); !made)
    (void)send_packet(channel.get(), xdr::encode(ChildMessage(to_wire(made.error()))));
  ::_exit(0);
}

// The mounts of the child's namespaces, which the helper makes while the controller goes on with the tree.
class MountsOfNamespaces {
 public:
  Result<void> begin(const LaunchPlan& plan, const Host& host, const Child& child) {
    wanted_ = wanted_mounts(plan);
    ready_ = &child.ready;
    if (!wanted_.proc && !wanted_.sys && !wanted_.mqueue && !wanted_.cgroup) return {};
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make socket pair");
    channel_ = SocketFd(pair[0]);
    const SocketFd theirs(pair[1]);
    return host.pid_ns ? begin_and_return(host, child, theirs) : begin_by_another(child, theirs);
  }

  // Waits at the first call, for init and its namespaces in any case.
  Result<const NamespaceMounts*> get() {
    if (channel_)
      TRY(receive(), "mounts of the container's namespaces");
    else if (ready_)
      TRY(await_ready(*ready_));
    ready_ = nullptr;
    return &mounts_;
  }

 private:
  Result<void> receive() {
    auto packet = TRY(recv_packet(channel_.get()));
    channel_.reset();
    if (packet.bytes.empty()) return fail(VIR_ERR_OPERATION_FAILED, "the helper was killed");
    auto message = TRY(xdr::decode_exact<ChildMessage>(packet.bytes, 64 * 1024));
    if (auto* error = std::get_if<WireError>(&message)) return from_wire(std::move(*error));
    auto next = packet.files.begin();
    for (auto [is_wanted, mount] : {std::pair(wanted_.proc, &mounts_.proc),
                                    {wanted_.sys, &mounts_.sys},
                                    {wanted_.mqueue, &mounts_.mqueue},
                                    {wanted_.cgroup, &mounts_.cgroup}})
      if (is_wanted && next != packet.files.end()) *mount = MountFd((next++)->release());
    if (next != packet.files.end()) return fail(VIR_ERR_INTERNAL_ERROR, "the helper sent too many mounts");
    if (is_by_another_) helper_.await();  // to kill the one would leave the other to somebody else
    return {};
  }

  // Only children born from here on are in that pid namespace (setns(2)); at once back again.
  Result<void> begin_and_return(const Host& host, const Child& child, const SocketFd& theirs) {
    TRY(kernel::enter_namespaces(child.pidfd, CLONE_NEWPID), "enter the pid namespace");
    auto helper = kernel::clone_process({});
    if (helper && helper->pid == 0) run_helper(wanted_, child, theirs);
    if (helper) helper_ = kernel::Errand(std::move(helper->pidfd));
    TRY(kernel::enter_namespace(host.pid_ns, CLONE_NEWPID), "leave the pid namespace");
    return helper ? Result<void>() : std::move(helper).error();
  }

  Result<void> begin_by_another(const Child& child, const SocketFd& theirs) {
    auto another = TRY(kernel::clone_process({}));
    if (another.pid == 0) {
      if (kernel::enter_namespaces(child.pidfd, CLONE_NEWPID))
        if (auto helper = kernel::clone_process({}); helper) {
          if (helper->pid == 0) run_helper(wanted_, child, theirs);
          (void)kernel::wait_process(helper->pidfd);
        }
      ::_exit(0);
    }
    helper_ = kernel::Errand(std::move(another.pidfd));
    is_by_another_ = true;
    return {};
  }

  Wanted wanted_;
  const Fd* ready_ = nullptr;
  kernel::Errand helper_;
  bool is_by_another_ = false;
  SocketFd channel_;
  NamespaceMounts mounts_;
};

// In the container's network namespace: below /proc/sys/net every one of them finds directories of its own, so what the
// controller mounts there from its own would lie on the host's, where the container never comes by.
Result<void> apply_proc(Tree& tree, const ProcStep& step, const NamespaceMounts& mounts, const Host& host,
                        const Child& child) {
  TRY(kernel::enter_namespaces(child.pidfd, CLONE_NEWNET), "enter the network namespace");
  auto applied = tree.apply(step, mounts);
  TRY(kernel::enter_namespace(host.net_ns, CLONE_NEWNET), "leave the network namespace");
  return applied;
}

}  // namespace

Result<void> apply_from_parent(const LaunchPlan& plan, const Host& host, const Child& child, Boot& result) {
  result.user_ns = TRY(kernel::open_namespace(host.proc, child.pid, "user"));
  // The map comes first wherever the plan has it: an idmapped mount takes it as it is at that moment.
  for (const auto& step : plan.from_parent)
    if (const auto* maps = std::get_if<IdMapStep>(&step))
      TRY(kernel::write_id_maps(host.proc, child.pid, maps->maps));
  MountsOfNamespaces mounts;
  TRY(mounts.begin(plan, host, child), "mounts of the container's namespaces");
  Tree tree(plan, host, result.user_ns);
  Links links(host, child.pid, result.host_ends, result.macvlans);
  for (const auto& step : plan.from_parent) {
    TRY(std::visit(
        [&](const auto& s) -> Result<void> {
          using Step = std::decay_t<decltype(s)>;
          if constexpr (std::is_same_v<Step, IdMapStep>)
            return {};
          else if constexpr (std::is_same_v<Step, ProcStep>)
            return apply_proc(tree, s, *TRY(mounts.get()), host, child);
          else if constexpr (requires { links.apply(s); }) {
            (void)TRY(mounts.get());  // the network namespace is there
            return links.apply(s);
          } else if constexpr (requires(const NamespaceMounts& all) { tree.apply(s, all); })
            return tree.apply(s, *TRY(mounts.get()));
          else
            return tree.apply(s);
        },
        step));
  }
  (void)TRY(mounts.get());
  TRY(tree.finish());
  result.consoles = tree.take_consoles();
  result.devpts = tree.take_devpts();
  result.loose = tree.take_loose();
  const NsFd net_ns = TRY(kernel::open_namespace(host.proc, child.pid, "net"));
  result.net_ns = TRY(number_of(net_ns));
  for (const auto& end : result.host_ends) result.record.host_links.push_back(end.name);
  links.commit();
  return {};
}

}  // namespace virtuserns::controller
