#include "driver/controller/host_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::controller {

Result<HostFile> HostFile::open(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos || slash + 1 == path.size())
    return fail(VIR_ERR_INTERNAL_ERROR, quote(path) + " is no file path");
  HostFile file{TRY(open_directory(slash == 0 ? "/" : path.substr(0, slash))), path.substr(slash + 1)};
  return file;
}

void HostFile::remove() const {
  if (dir) ::unlinkat(dir.get(), name.c_str(), 0);
}

Result<Fd> HostFile::open_log(bool is_truncated) const {
  Fd file(::openat(
      dir.get(), name.c_str(),
      O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (is_truncated ? O_TRUNC : 0),
      0600));
  if (!file) return sys_fail("open " + quote(name));
  return file;
}

Result<Fd> HostFile::rotate() const {
  const std::string backup = name + ".0";
  ::renameat(dir.get(), name.c_str(), dir.get(), backup.c_str());
  return open_log(true);
}

}  // namespace virtuserns::controller
