// The end of a conversion, one way or the other.
#pragma once

#include "conf/base/result.h"
#include "tools/convert/job.h"

namespace virtuserns::convert {

// Undefines the container, which must not run, and removes all that the job has made. May be called again after a crash.
[[nodiscard]] Result<void> undo_job(Job& job);

// Once it is committed, a volume is in a file of its own: "vda1.own.qcow2".
[[nodiscard]] std::string own_name(const Placed& place);

}  // namespace virtuserns::convert
