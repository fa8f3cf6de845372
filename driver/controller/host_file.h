// Files of the host by directory and name, since paths lead nowhere once the controller has a root of its own.
#pragma once

#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::controller {

// A file of the host that is replaced or removed later, after host paths are gone.
struct HostFile {
  DirFd dir;
  std::string name;
  [[nodiscard]] static Result<HostFile> open(const std::string& path);
  void remove() const;
  [[nodiscard]] Result<Fd> open_log(bool is_truncated) const;
  // Gives what is there the name of its backup, ".0", and opens an empty one.
  [[nodiscard]] Result<Fd> rotate() const;
};

}  // namespace virtuserns::controller
