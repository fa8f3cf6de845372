// The definition of a machine with other disks.
#pragma once

#include <string>

#include "conf/base/result.h"
#include "tools/convert/job.h"

namespace virtuserns::convert {

// The source of each of the job's disks becomes `folder`/TARGET.qcow2; the rest stays.
[[nodiscard]] Result<std::string> make_back_xml(const JobState& state, const std::string& folder);
[[nodiscard]] Result<void> write_back_xml(const JobState& state, const std::string& folder, const std::string& path);

}  // namespace virtuserns::convert
