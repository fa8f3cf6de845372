// The files of an instance that is off, as it would see them: its base and what it has written, mounted nowhere.
//
// The tree is whatever an image or a tenant made of it. Every path is resolved inside of it (openat2, RESOLVE_IN_ROOT), its device nodes are
// not opened, and only regular files are read or written. Called as the machine's root, while no domain uses `own`.
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/compute/model.h"

namespace virtuserns::compute {

// `own` gets `upper` and `work` as the driver of containers makes them (decision 0023), so that a start takes them as they are.
[[nodiscard]] Result<MountFd> open_tree_of(const std::string& own, const std::string& base);

// Owned by the instance's root; missing directories are made, 0755. Links of the tree are followed inside of it.
[[nodiscard]] Result<void> write_files(const MountFd& tree, const std::vector<FileToWrite>& files);
// In its /etc/shadow (kernel/shadow.h). VIR_ERR_OPERATION_UNSUPPORTED: there is no such file; VIR_ERR_INVALID_ARG: no such user.
[[nodiscard]] Result<void> set_password_in(const MountFd& tree, const std::string& user, const std::string& password);

// A new directory of these files, relative to it, that everybody inside may read: a config drive.
[[nodiscard]] Result<void> make_config_drive(const std::string& folder, const std::vector<FileToWrite>& files);

}  // namespace virtuserns::compute
