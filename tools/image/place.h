// Where a tree is made: a folder beside the directory that it becomes, until it is complete.
//
//   PARENT/.NAME.unpack/lock   held for as long as somebody works in it, by the kernel, whoever dies
//   PARENT/.NAME.unpack/work/  what is thrown away
//   PARENT/.NAME.unpack/root/  becomes PARENT/NAME by one rename, with all of it on the disk before
//   PARENT/.NAME.remove/       was PARENT/NAME
//
// PARENT belongs to root alone, and nobody else may enter it: in a tree are set-user-id programs, which are host root's there.
#pragma once

#include <string>
#include <utility>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::image {

class Place {
 public:
  // `directory` is not there yet. What killed runs have left in its parent is removed.
  [[nodiscard]] static Result<Place> make(const std::string& directory);
  Place(Place&& other) noexcept
      : parent_(std::move(other.parent_)),
        lock_(std::move(other.lock_)),
        root_(std::move(other.root_)),
        folder_(std::exchange(other.folder_, "")),
        name_(std::move(other.name_)) {}
  Place& operator=(Place&&) = delete;
  ~Place();  // removes what was not published

  [[nodiscard]] const DirFd& root() const { return root_; }
  // A regular file: whoever works here and may outlive us for a moment keeps it open.
  [[nodiscard]] const Fd& lock() const { return lock_; }
  [[nodiscard]] std::string work() const { return folder_ + "/work"; }
  [[nodiscard]] std::string path() const;  // what it will be
  [[nodiscard]] Result<void> publish();

 private:
  Place() = default;
  DirFd parent_;
  Fd lock_;
  DirFd root_;
  std::string folder_;  // empty: nothing is to be removed
  std::string name_;
};

// What killed runs have left in `parent`; what somebody works in stays.
[[nodiscard]] Result<void> clean(const std::string& parent);
// Not there any more when this returns, whatever happens afterwards; one that is missing is no error.
[[nodiscard]] Result<void> remove(const std::string& directory);

}  // namespace virtuserns::image
