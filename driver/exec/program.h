// What main() of every program of ours for people is about.
#pragma once

#include <getopt.h>

#include <cerrno>
#include <string>

#include "conf/base/result.h"

namespace virtuserns::exec {

// Runs `run` and returns its status. An error is said on standard error, in one line without control characters, and
// becomes the status that `status_of` gives it. Descriptors 0 to 2 are there before anything else is opened.
[[nodiscard]] int run_program(const char* name, int argc, char** argv, Result<int> (*run)(int argc, char** argv),
                              int (*status_of)(const Error& error));
// What is asked for with --help or --version: on standard output, status 0.
[[nodiscard]] Result<int> say(const char* text);

// The options of getopt_long(3) into `options`, one after the other; 'h' and 'V' set is_help and is_version of it.
template <class Options>
[[nodiscard]] Result<void> read_options(int argc, char** argv, const char* letters, const option* names,
                                        Options& options,
                                        Result<void> (*take)(Options& options, int option, std::string value)) {
  for (int found = 0; (found = ::getopt_long(argc, argv, letters, names, nullptr)) != -1;) {
    if (found == '?')
      return fail(VIR_ERR_INVALID_ARG, std::string("see '") + ::program_invocation_short_name + " --help'");
    if (found == 'h' || found == 'V')
      (found == 'h' ? options.is_help : options.is_version) = true;
    else
      TRY(take(options, found, optarg ? optarg : ""));
  }
  return {};
}

}  // namespace virtuserns::exec
