// The end of a conversion, one way or the other.
#pragma once

#include "conf/base/result.h"
#include "tools/convert/findings.h"
#include "tools/convert/job.h"
#include "tools/convert/settings.h"

namespace virtuserns::convert {

// Undefines the container, which must not run, puts a machine that ran back (way_back.h), and removes all that the job has
// made. The answer: what of the machine is not as it was. May be called again after a crash.
[[nodiscard]] Result<std::vector<Finding>> undo_job(Job& job, const Settings& settings);

// Once it is committed, a volume is in a file of its own: "vda1.own.qcow2".
[[nodiscard]] std::string own_name(const Placed& place);

}  // namespace virtuserns::convert
