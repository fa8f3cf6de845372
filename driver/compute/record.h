// The journal of one instance: <state>/instances/<uuid>/instance.json. It is written before what it says is done, so that whoever
// finds it knows what there may be to remove.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "driver/compute/model.h"

namespace virtuserns::compute {

enum class Phase {
  kCreating,  // by a spawn or a migration that has not come to its end; or it is being removed
  kReady,
  kMoved,  // a migration has taken it elsewhere; what is here waits for a confirm or a revert
};

struct Record {
  Phase phase = Phase::kCreating;
  InstanceSpec spec;
  std::optional<ImageRef> image;  // none: the root is a volume
  std::vector<Vif> network;
  std::vector<VolumeRef> volumes;
  bool has_config_drive = false;
  bool is_suspended = false;                  // its domain is paused, which is said to be a suspension
  bool is_frozen = false;                     // the file system of the volume that is its root
  bool is_paused_here = false;                // for as long as its files are packed: it is to run on
  std::optional<ImageRef> rescue;             // it runs off this image, its own root at /mnt
  std::optional<InstanceSpec> before_resize;  // on this host: what a revert goes back to
  std::optional<VolumeRef> arriving;  // is being attached, or swapped in for the one of `volumes` at its device
  std::string token;                  // with kMoved: whoever has it may fetch the disk
  bool operator==(const Record&) const = default;
};

inline constexpr int kRecordVersion = 1;

[[nodiscard]] std::string format_record(const Record& record);
// VIR_ERR_INVALID_ARG names what is wrong in it.
[[nodiscard]] Result<Record> parse_record(std::string_view text);

}  // namespace virtuserns::compute
