#include "conf/exec.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "conf/base/text.h"

namespace virtuserns {

namespace {

Result<void> refuse(const std::string& what) { return fail(VIR_ERR_INVALID_ARG, what); }

Result<void> check_name(const char* what, const std::string& name) {
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == ':' || c == 0x7f)
      return refuse(std::string(what) + " " + quote(name) + " is no name");
  return {};
}

}  // namespace

Result<void> validate_exec(const ExecDef& def) {
  if (def.arguments.empty() || def.arguments.front().empty()) return refuse("there is no command to run");
  std::size_t bytes = 0;
  for (const auto& argument : def.arguments) bytes += argument.size() + 8;
  for (const auto& variable : def.environment) {
    bytes += variable.size() + 8;
    const auto equals = variable.find('=');
    if (equals == 0 || equals == std::string::npos)
      return refuse(quote(variable) + " is no environment variable: give it as NAME=VALUE");
  }
  if (bytes > kMaxExecBytes)
    return refuse("arguments and environment together are longer than " + std::to_string(kMaxExecBytes / 1024) +
                  " KiB");
  if (!def.directory.empty() && def.directory.front() != '/')
    return refuse("the working directory " + quote(def.directory) + " is not absolute");
  TRY(check_name("user", def.user));
  TRY(check_name("group", def.group));
  if (def.rows > 0xffff || def.columns > 0xffff) return refuse("no terminal is as large as that");
  return {};
}

Result<void> validate_program(int fd) {
  // Only memory of memfd_create(2) can have all four: a file of a tmpfs refuses the first three.
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  constexpr mode_t kUnwanted = S_ISUID | S_ISGID | S_IWGRP | S_IWOTH;
  struct stat st {};
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals || ::fstat(fd, &st) != 0 || (st.st_mode & kUnwanted) != 0)
    return refuse("the program that was brought along is no sealed memory; seal all of a memfd, with mode 0555");
  return {};
}

}  // namespace virtuserns
