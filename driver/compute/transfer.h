// The disk of an instance as bytes on their way to another host: what is written of it, in order, between holes.
//
//   a frame (frame.h): {"version": 1, "disk_bytes": N, "config_drive": [{"path", "content", "mode"}]}
//   runs: offset and length as eight bytes each, big-endian, and as many bytes; ascending, within N
//   the end: a run of length 0 at N
//
// A stream that ends earlier is refused, so that half a disk is never taken for one.
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/compute/model.h"

namespace virtuserns::compute {

struct Luggage {
  std::uint64_t disk_bytes = 0;
  std::vector<FileToWrite> config_drive;
};

[[nodiscard]] Json to_json(const Luggage& luggage);
[[nodiscard]] Result<Luggage> read_luggage(const Json& json);

// To a pipe or socket. Only what is written of `disk` (SEEK_DATA) is read.
[[nodiscard]] Result<void> send_disk(const Fd& to, const Fd& disk, const Luggage& luggage);
[[nodiscard]] Result<Luggage> receive_luggage(const Fd& from);
// Into `disk`, which is new and empty. VIR_ERR_RPC: the stream is damaged or was cut off.
[[nodiscard]] Result<void> receive_disk(const Fd& from, const Fd& disk, std::uint64_t disk_bytes);

}  // namespace virtuserns::compute
