// What a file system has for whoever fills it with what strangers send, when a share of it is to be left for everybody else.
#pragma once

#include <cstdint>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns {

struct Spare {
  std::uint64_t bytes = 0, inodes = 0;  // inodes: the greatest number where they are made as they are needed
};

// Of the file system of `place`, without `reserve_percent` of its size and of its inodes, and at least 64 MiB and 4096 of them.
[[nodiscard]] Result<Spare> spare_of(const DirFd& place, unsigned reserve_percent);

}  // namespace virtuserns
