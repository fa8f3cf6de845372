#include "driver/exec/program.h"

#include <fcntl.h>

#include <cstdio>

#include "conf/base/text.h"

namespace virtuserns::exec {

int run_program(const char* name, int argc, char** argv, Result<int> (*run)(int argc, char** argv),
                int (*status_of)(const Error& error)) {
  // A program that was started without them would take its sockets for stdio.
  for (int fd = ::open("/dev/null", O_RDWR); fd >= 0 && fd < 3; fd = ::open("/dev/null", O_RDWR)) {
  }
  const auto status = run(argc, argv);
  if (status) return *status;
  std::fprintf(stderr, "%s: error: %s\n", name, printable(status.error().text, 4096).c_str());
  return status_of(status.error());
}

Result<int> say(const char* text) {
  if (std::fputs(text, stdout) < 0 || std::fflush(stdout) != 0) return sys_fail("write");
  return 0;
}

}  // namespace virtuserns::exec
