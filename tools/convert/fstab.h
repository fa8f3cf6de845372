// fstab(5): lines as they are written, so that an edit changes nothing else.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/convert/guest_files.h"

namespace virtuserns::convert {

struct FstabLine {
  std::string text;                         // the line, without its end
  bool is_entry = false;                    // else a comment, a blank or something unreadable
  std::string spec, target, type, options;  // with \040 and its like resolved; bytes of the guest
};

// Never fails: what cannot be understood is no entry.
[[nodiscard]] std::vector<FstabLine> parse_fstab(std::string_view text);
[[nodiscard]] std::string format_fstab(const std::vector<FstabLine>& lines);
// The value of an option of "a,b=c": "" when it has none, nothing when it is not there.
[[nodiscard]] std::optional<std::string> option_of(const FstabLine& line, std::string_view name);

// "/a//b/" is "/a/b".
[[nodiscard]] std::string tidy_target(std::string_view path);

// A directory that the host shares with the machine (virtiofs, 9p), and where the guest mounts it.
struct GuestShare {
  std::string tag, mount_point;
};
[[nodiscard]] bool is_share(const FstabLine& line);
[[nodiscard]] std::vector<GuestShare> find_shares(const GuestFiles& files);

}  // namespace virtuserns::convert
