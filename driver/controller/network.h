// The network keeper of a domain: one process more, of domains that have an <interface type='user'>, or, in a session, an
// <interface type='bridge'>.
//
// A controller of an ordinary user leaves the host's network namespace and cannot come back (Host::prepare); but passt has to run
// there, and a new one at every boot. So the keeper is forked before: it stays in the host's namespaces, runs pasta (pasta.h) for
// the boot there is, and runs it again when it has died. It knows the plan, and is told only when a boot begins and ends. It is
// killed with the controller, and leaves when nobody can ask any more; what it runs is killed with it.
#pragma once

#include "driver/controller/host_file.h"
#include "driver/controller/pasta.h"

namespace virtuserns::controller {

// Forks it. The socket is all that there is of it; `logs` are those of the UserLinkSteps in order, and are its own from then on.
[[nodiscard]] Result<SocketFd> start_keeper(const LaunchPlan& plan, std::vector<HostFile> logs);

// Asks, and waits. `link`: of the UserLinkSteps; `container`: of this boot. Afterwards the interface is there, with its addresses.
[[nodiscard]] Result<void> attach_link(const SocketFd& keeper, std::uint32_t link, const NamespacePair& container);
// The boot is over: pasta is ended, and nothing of the keeper's holds the container's namespaces any more.
[[nodiscard]] Result<void> detach_links(const SocketFd& keeper);
// Has the system's link broker make one of the LentLinkSteps, with its guest's end in `net`. The name of the host's.
[[nodiscard]] Result<std::string> borrow_link(const SocketFd& keeper, std::uint32_t link, const NsFd& net);

}  // namespace virtuserns::controller
