#include "driver/kernel/mountinfo.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

constexpr std::size_t kMaxMounts = 100'000;  // fs.mount-max
constexpr std::size_t kMaxBytes = 64 * 1024 * 1024;

}  // namespace

std::vector<MountLine> parse_mountinfo(std::string_view text) {
  std::vector<MountLine> mounts;
  for (const auto line : split(text, '\n')) {
    const auto words = split_blanks(line);
    if (words.size() < 10 || mounts.size() == kMaxMounts) continue;
    const auto id = parse_number<std::uint64_t>(words[0]), parent = parse_number<std::uint64_t>(words[1]);
    if (id && parent)
      mounts.push_back({*id, *parent, std::string(words[2]), unescape_octal(words[3]), unescape_octal(words[4])});
  }
  return mounts;
}

Result<std::vector<MountLine>> list_own_mounts(const DirFd& proc) {
  const Fd file(::openat(proc.get(), "self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!file) return sys_fail("open the list of mounts");
  std::string text;
  std::vector<char> buffer(64 * 1024);
  for (ssize_t got = 0; (got = ::read(file.get(), buffer.data(), buffer.size())) != 0;) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return sys_fail("read the list of mounts");
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > kMaxBytes) return fail(VIR_ERR_OPERATION_FAILED, "the list of mounts is too long");
  }
  return parse_mountinfo(text);
}

}  // namespace virtuserns::kernel
