// The header of a qcow2 image: what other files it needs, and what is wrong with it by its own words.
#pragma once

#include <string>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::controller {

struct Qcow2Header {
  std::string backing;         // the name of the file that it lies on, in the image's own words; empty: none
  std::string backing_format;  // empty: not written down
  bool has_data_file = false;  // its data is in another file
  bool is_unclean = false;     // it was not closed in order
  bool is_corrupt = false;     // somebody has found it damaged, and marked it
  bool is_encrypted = false;
};

// All of a header is within so much (the smallest cluster that may hold a name and extensions is of this size, too).
inline constexpr std::size_t kQcow2HeaderBytes = 64 * 1024;

// Of foreign bytes: the first of the image, kQcow2HeaderBytes of them if it has as many.
[[nodiscard]] Result<Qcow2Header> parse_qcow2_header(std::string_view start);
[[nodiscard]] Result<Qcow2Header> read_qcow2_header(const Fd& image);

}  // namespace virtuserns::controller
