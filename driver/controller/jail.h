// A program that reads what others have written, and gets nothing but that: how images are looked at and served.
//
// In a jail a program is nobody (kIdOfNobody), in pid, mount, network, ipc and uts namespaces of its own, behind the filter of
// system calls of a domain, with no capability but one that may be asked for. All that it sees of the host is /usr, read-only and
// without set-user-id programs, and the files that it is given: below /images, or as descriptors from 3 on. There is no /proc, no
// device, no network. It dies with the process that made it,
// and does not hear SIGTERM and SIGHUP.
//
// Called by the controller before it has a root of its own, as the machine's root.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::controller {

enum class OpensFiles { kNo, kYes };  // kYes: CAP_DAC_OVERRIDE, for what lies below /images, whoever owns it

struct JailRequest {
  std::string program;  // of the host
  std::vector<std::string> arguments;
  std::span<const int> files;   // become 3, 4, ..
  std::vector<MountFd> images;  // become /images/0, /images/1, ..
  OpensFiles opens_files = OpensFiles::kNo;
  std::span<const std::uint8_t> filter;
  std::string stage;  // a directory of the host to mount on, in the jail's own namespace
};

struct Jailed {
  PidFd process;      // a child, to be reaped
  Fd output, errors;  // what it prints. When it could not be run, `errors` says why
  Fd life;            // by which it sees, until its exec, that we are there
};

// Files that are there for who insists on them: an empty /dev/null, and /dev/fd/3 (driver/controller/storage.cpp).
[[nodiscard]] Result<Jailed> start_in_jail(const JailRequest& request);

struct Said {
  std::string output, errors;
  int status = 0;  // as of waitpid(2)
};
// Until it has ended; kills it when that is not in time, or when it says more than kMaxSaid.
inline constexpr std::size_t kMaxSaid = 16 * 1024;
[[nodiscard]] Result<Said> await_jailed(Jailed jailed, int timeout_ms);

}  // namespace virtuserns::controller
