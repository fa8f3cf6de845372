// The way back of edits: what was there before, kept outside the guest, and how it comes back.
//
// In `originals_dir`: "manifest.json", and for each edit that replaced or removed a file "N.original", for each that
// wrote one "N.edited". All of it is durable before the guest's first file changes.
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/findings.h"

namespace virtuserns::convert {

struct PlacedEdit {
  enum class Kind { kFile, kLink, kNothing };
  std::string path;
  Kind kind = Kind::kNothing;
  std::string text;  // content or target
};

// VIR_ERR_OPERATION_INVALID when `originals_dir` has a manifest already: undo_edits() first.
[[nodiscard]] Result<void> apply_edits(const DirFd& root, const std::vector<PlacedEdit>& edits,
                                       const std::string& originals_dir);

// True when there is something to undo.
[[nodiscard]] bool has_originals(const std::string& originals_dir);

// Brings back every original that `originals_dir` keeps, with owner, mode, extended attributes and times, and the times
// of the directories that held them; then removes the manifest. What the guest changed after the conversion is saved as
// "N.changed" and reported; what cannot come back is reported as a loss. May be called again after a crash; without a
// manifest nothing is done.
[[nodiscard]] Result<std::vector<Finding>> undo_edits(const DirFd& root, const std::string& originals_dir);

}  // namespace virtuserns::convert
