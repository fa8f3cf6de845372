// How a command comes into a running container: the two short-lived processes between the stem and its exec.
//
//   joiner   a fork of the stem, the controller's child (CLONE_PARENT), in the host's pid namespace, where nothing of the container can see it. Not
//            dumpable. In this order: it enters the control groups, closes what it does not need, takes the domain's
//            host ids (as which it makes the pipes or the terminal, so that they are charged to the domain), enters
//            the user namespace, becomes 0 there, and only then enters the others, the mount namespace last.
//   entrant  cloned by it into the pid namespace as the controller's child (CLONE_PARENT). The container sees it, but
//            it has only ids and capabilities of the container; until exec nobody there may trace it or look into it,
//            because its memory still belongs to the host's user namespace and is not dumpable.
#pragma once

#include <vector>

#include "conf/exec.h"
#include "driver/controller/boot.h"

namespace virtuserns::controller {

// What leads inside, opened by the stem, because only it still sees the host's /proc and groups.
struct Doors {
  std::vector<Fd> tasks;  // "0" is written into each
  NsFd user, ipc, uts, net, cgroup, pid, mount;
  const DirFd* host_proc = nullptr;
  const Fd* devpts = nullptr;  // the container's own instance, as the controller mounted it
};
// `init`: the caller makes sure that the number was its own all the time.
[[nodiscard]] Result<Doors> open_doors(const Host& host, pid_t init, const Fd& devpts);
// Every id of the caller, and no other group; it dies with its parent.
[[nodiscard]] Result<void> become(uid_t uid, gid_t gid);
// For a process that is to have nothing else open.
[[nodiscard]] Result<void> close_all_but(std::vector<int> kept);

struct Entry {
  const ExecDef& command;
  int program;  // run in the place of what the command names, or -1
  int channel;
};
// In a fork of the stem. Sends Entered from the joiner, then AboutToExec, NotRun or WireError from the entrant.
[[noreturn]] void run_joiner(const LaunchPlan& plan, const Entry& entry, const Doors& doors);

}  // namespace virtuserns::controller
