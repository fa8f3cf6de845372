// A conversion between what was looked at and what is made of it, of machines that are off and of those that run.
#pragma once

#include <string>
#include <vector>

#include "tools/convert/job.h"
#include "tools/convert/machine.h"

namespace virtuserns::convert {

// All that is said before anything is written.
struct Planned {
  Machine machine;
  Parts parts;
  Mapped mapped;
  Report report;
};

[[nodiscard]] Result<Planned> make_plan(SourceVm vm, const Settings& settings, const std::string& workplace);
[[nodiscard]] JobState first_state(const Planned& planned, const Settings& settings);
// That a conversion of this name is in the way.
[[nodiscard]] Error say_converted(const std::string& name);
// What the rules would do, in the report, becomes what was done.
void set_done(Planned& planned, std::vector<Finding> done);
// Its uuid is in the journal before it is there.
[[nodiscard]] Result<void> define_container(const Planned& planned, Job& job, bool is_autostarted);

}  // namespace virtuserns::convert
