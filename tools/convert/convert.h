// The subcommands. Each has the workplace of make_workplace() and a process of one thread.
#pragma once

#include <string>

#include "tools/convert/findings.h"
#include "tools/convert/settings.h"

namespace virtuserns::convert {

// Writes nothing.
[[nodiscard]] Result<Report> plan_machine(const std::string& word, const Settings& settings,
                                          const std::string& workplace);
// A defined container. After an error nothing of it is left; after a crash the next run of it removes what is left and
// begins anew. With a finding kBlock nothing is done, unless settings.is_forced: the report says so.
[[nodiscard]] Result<Report> convert_machine(const std::string& word, const Settings& settings,
                                             const std::string& workplace);
// Of convert_machine, by the name in its report. After an error it is still there, and not started.
[[nodiscard]] Result<void> start_converted(const std::string& name, const Settings& settings);
// The container and all that was made for it are gone; the VM is as it was, since its disks were never written.
[[nodiscard]] Result<Report> roll_back(const std::string& name, const Settings& settings);
// The container needs the VM's disks no more, and rollback is over.
[[nodiscard]] Result<Report> commit_conversion(const std::string& name, const Settings& settings,
                                               const std::string& workplace);
// A VM again: new disks in `output`, on top of the original ones, with the container's files in them as they were before they
// were edited, and a definition beside them.
[[nodiscard]] Result<Report> bring_back(const std::string& name, const std::string& output, const Settings& settings,
                                        const std::string& workplace);

}  // namespace virtuserns::convert
