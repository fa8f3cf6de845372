// Access control lists of an archive: set when everything else is there. GNU tar writes names of users alone into them, which mean
// something to the archive's own /etc/passwd only; and a list that new files inherit may not be set before they are there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/result.h"

struct archive_entry;

namespace virtuserns::image {

class AclList {
 public:
  // Of an entry whose name is `name`. An error: of NFSv4's kind, too many, an id that a container has not.
  [[nodiscard]] Result<void> take(archive_entry* entry, const std::string& name);
  // In the tree that is this process's root.
  [[nodiscard]] Result<void> apply() const;

 private:
  struct Line {
    std::uint16_t tag = 0, permissions = 0;
    std::int64_t id = 0;  // below 0: that of `who`
    std::string who;
  };
  struct Acl {
    std::string name;
    bool is_default = false;
    std::vector<Line> lines;
  };
  struct Names;
  [[nodiscard]] Result<void> take_kind(archive_entry* entry, const std::string& name, bool is_default);
  [[nodiscard]] static Result<void> apply_one(const Acl& acl, const Names& names);

  std::vector<Acl> all_;
  std::size_t lines_ = 0;
};

}  // namespace virtuserns::image
