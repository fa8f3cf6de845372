// A path in the eyes of another process, one component after the other, so that each can be judged.
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/showinfo/judge.h"
#include "tools/showinfo/mounts.h"

namespace virtuserns::showinfo {

// From `root`, which nothing in the path leads out of. Opens nothing for reading: only O_PATH. A component that the caller
// may not reach is an Error; one that is not there is in the facts.
[[nodiscard]] Result<OpenFacts> walk_path(const DirFd& root, const std::vector<Mount>& mounts,
                                          const std::string& path);

}  // namespace virtuserns::showinfo
