// The facts that the rules of judge.h are given, of this host. What a container holds in its hand (its file systems, its
// memory) may never answer: whoever calls this does it in a process that can be given up.
#pragma once

#include <string>

#include "conf/base/result.h"
#include "tools/showinfo/host.h"
#include "tools/showinfo/judge.h"

namespace virtuserns::showinfo {

// VIR_ERR_OPERATION_DENIED when its user namespace is not visible.
[[nodiscard]] Result<Subject> read_subject(const Host& host, const Process& process);

// `path` is absolute and in the terms of the process, whose root and mounts are used. Links are followed.
[[nodiscard]] Result<OpenFacts> look_at_path(const Process& process, NamespaceId first_ns, const std::string& path,
                                             unsigned wanted);
[[nodiscard]] Result<SignalFacts> look_at_target(const Host& host, const Process& process, const Process& target);
[[nodiscard]] Result<TraceFacts> look_at_tracee(const Host& host, const Process& process, const Process& target);
[[nodiscard]] Result<MountFacts> look_at_mounting(const Host& host, const Process& process, const std::string& type);
[[nodiscard]] Result<BindFacts> look_at_binding(const Process& process, std::uint32_t port);

}  // namespace virtuserns::showinfo
