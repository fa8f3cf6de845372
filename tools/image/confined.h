// Work on a tree of files that others have written, or by what others have written, in a child that has nothing else.
//
// The child is root of a user namespace whose ids are nobody's of this machine (kFirstId) and has the tree, idmapped to them and
// not to be executed, as its root: on the disk are the numbers that it sees, 0 to 65535. It has the capabilities that are asked for over files of
// these ids and no others, no /proc, no network, no device, no program, pid and ipc namespaces of its own, a filter of system calls without exec, fork
// and sockets, bounded memory, and the descriptors that it is given. It dies with its parent.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::image {

inline constexpr std::uint32_t kIdCount = 65536;               // as a container has
inline constexpr std::uint32_t kFirstId = 0u - 2u * kIdCount;  // behind all that are given to domains or users

// For mounts that such a child works on. The caller has one thread.
[[nodiscard]] Result<NsFd> make_child_ids();

struct Confined {
  const NsFd& ids;
  MountFd tree;                  // detached and idmapped by `ids`; becomes "/"
  std::string stage;             // of convert::make_workplace()
  std::uint64_t capabilities;    // bits
  std::vector<int> descriptors;  // that stay open, as they are
};
inline constexpr std::size_t kMaxAnswer = 256 * 1024;
// What `work` returned in the child: of an error its text, and whether it is kTooLarge or ENOSPC (bounds.h). It allocates, and calls no
// function that needs a file of the machine. The answer is to be taken as from a stranger.
[[nodiscard]] Result<std::string> run_confined(const Confined& request,
                                               const std::function<Result<std::string>()>& work);

}  // namespace virtuserns::image
