// What main() of every program of ours for people is about.
#pragma once

#include "conf/base/result.h"

namespace virtuserns::exec {

// Runs `run` and returns its status. An error is said on standard error, in one line without control characters, and
// becomes the status that `status_of` gives it. Descriptors 0 to 2 are there before anything else is opened.
[[nodiscard]] int run_program(const char* name, int argc, char** argv, Result<int> (*run)(int argc, char** argv),
                              int (*status_of)(const Error& error));
// What is asked for with --help or --version: on standard output, status 0.
[[nodiscard]] Result<int> say(const char* text);

}  // namespace virtuserns::exec
