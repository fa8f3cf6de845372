// The kinds of errors of the compute API (docs/compute-api.md), and which libvirt code is which.
#pragma once

#include <string_view>

#include "conf/base/result.h"

namespace virtuserns::compute {

struct Kind {
  std::string_view name;
  bool is_retryable = false;
};

// Codes that libvirt has no better use for here. Each is one kind, whoever makes the error.
inline constexpr int kImageMissing = VIR_ERR_NO_STORAGE_VOL;
inline constexpr int kImageRefused = VIR_ERR_INVALID_STORAGE_VOL;
inline constexpr int kImageTooLarge = VIR_ERR_STORAGE_PROBE_FAILED;  // for the disk of whoever wants it
inline constexpr int kUnavailable = VIR_ERR_RPC;

[[nodiscard]] Kind kind_of(const Error& error);

}  // namespace virtuserns::compute
