// What a container is started from, made of a machine's disks: overlays, a tree or an image.
#pragma once

#include <string>
#include <vector>

#include "tools/convert/job.h"
#include "tools/convert/machine.h"
#include "tools/convert/tree.h"

namespace virtuserns::convert {

// All of it is in the job's folder and durable when this returns, the guest's files edited. An error leaves what there is
// to whoever removes the folder; nothing stays mounted or open. The answer: what was done to the guest's files.
[[nodiscard]] Result<std::vector<Finding>> make_target(const Machine& machine, const Settings& settings,
                                                       const std::string& workplace, const Job& job);

// The same in parts, for a machine that runs (Mode::kTree). The tree is made, and has what the job's disks have now.
[[nodiscard]] Result<Copied> copy_bulk(const Machine& machine, const Settings& settings, const std::string& workplace,
                                       const Job& job, time_t own_since);
// What the job's disks have now, onto what copy_bulk() has made; `doubtful_since` as of update_tree().
[[nodiscard]] Result<Copied> copy_delta(const Machine& machine, const Settings& settings,
                                        const std::string& workplace, const Job& job, const timespec& doubtful_since);
// The edits of the rules in that tree, and all of it durable.
[[nodiscard]] Result<std::vector<Finding>> finish_tree(const Machine& machine, const Settings& settings,
                                                       const Job& job);

// A new qcow2 on top of the disk of each volume, named by overlay_name() in `folder`, open for writing. The keys are
// the names of the volumes, and `places` are changed to match.
[[nodiscard]] Result<DisksByName> open_overlays(const std::vector<JobDisk>& disks, std::vector<Placed>& places,
                                                const std::string& folder, const std::string& workplace);

}  // namespace virtuserns::convert
