// Runs the probes as a command in a domain. Their program comes along as sealed memory; nothing is written there.
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/exec/client.h"
#include "tools/drill/finding.h"

namespace virtuserns::drill {

// A sealed copy of the program at `path` (validate_program of conf/exec.h).
[[nodiscard]] Result<Fd> seal_program(const std::string& path);

// The findings of all probes; an error when they did not all come. What a container says is bounded in size and time.
[[nodiscard]] Result<Findings> run_probes(exec::Client& client, const DomainRef& domain, Fd program, bool are_all);

// A program of the probes that uses up what the kernel counts for each user, until this object goes.
class Hog {
 public:
  [[nodiscard]] static Result<Hog> start(exec::Client& client, const DomainRef& domain, Fd program);
  [[nodiscard]] const std::string& said() const { return said_; }

 private:
  Hog(std::vector<Fd> fds, std::string said) : fds_(std::move(fds)), said_(std::move(said)) {}
  std::vector<Fd> fds_;  // closing the first hangs it up
  std::string said_;
};

}  // namespace virtuserns::drill
