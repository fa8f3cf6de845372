// The header of a qcow2 image, as far as it says that the image needs other files.
#pragma once

#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::controller {

struct Qcow2Header {
  std::string backing;         // the name of the file that it lies on, in the image's own words; empty: none
  bool has_data_file = false;  // its data is in another file
};
// Of foreign bytes; reads some hundred of them.
[[nodiscard]] Result<Qcow2Header> read_qcow2_header(const Fd& image);

}  // namespace virtuserns::controller
