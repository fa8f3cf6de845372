// Runs virt-userns-image(1).
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::compute {

// What it printed, of a run that ended well; else an error with its own words. No shell, no environment of ours, and of our
// descriptors only `lock`, which it and the kernel keep for as long as it lives. The caller's process must not reap children
// that it did not make.
[[nodiscard]] Result<std::string> run_image_program(std::vector<std::string> argv, const Fd* lock,
                                                    std::chrono::seconds timeout);

}  // namespace virtuserns::compute
