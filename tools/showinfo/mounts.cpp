#include "tools/showinfo/mounts.h"

#include <algorithm>

#include "conf/base/text.h"

namespace virtuserns::showinfo {

namespace {

constexpr std::size_t kMaxMounts = 100'000;  // fs.mount-max

bool has_option(std::string_view options, std::string_view wanted) {
  const auto words = split(options, ',');
  return std::find(words.begin(), words.end(), wanted) != words.end();
}

// Directories that proc and sysfs keep empty for a mount: what is mounted there hides nothing.
bool is_meant_for_mounts(std::string_view below) {
  static constexpr std::string_view kPlaces[] = {"/fs/cgroup",          "/fs/bpf",          "/fs/fuse/connections",
                                                 "/fs/pstore",          "/fs/selinux",      "/fs/smackfs",
                                                 "/kernel/debug",       "/kernel/tracing",  "/kernel/security",
                                                 "/kernel/config",      "/hypervisor/s390", "/firmware/efi/efivars",
                                                 "/sys/fs/binfmt_misc", "/fs/nfsd",         "/openprom"};
  return std::find(std::begin(kPlaces), std::end(kPlaces), below) != std::end(kPlaces);
}

bool matches(std::string_view number, std::uint32_t wanted) {
  return number == "*" || parse_number<std::uint32_t>(number) == wanted;
}

}  // namespace

std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  for (const auto line : split(text, '\n')) {
    const auto words = split_blanks(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (dash - words.begin() < 6 || words.end() - dash < 3 || mounts.size() == kMaxMounts) continue;
    const auto id = parse_number<std::uint64_t>(words[0]), parent = parse_number<std::uint64_t>(words[1]);
    if (!id || !parent) continue;
    Mount mount{*id, *parent, std::string(words[3]), std::string(words[4])};
    mount.is_read_only = has_option(words[5], "ro");
    mount.has_nodev = has_option(words[5], "nodev");
    mount.has_noexec = has_option(words[5], "noexec");
    mount.is_idmapped = has_option(words[5], "idmapped");
    mount.type = dash[1];
    mount.is_read_only_filesystem = has_option(words.back(), "ro");
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

bool has_whole_view(const std::vector<Mount>& mounts, std::string_view type) {
  return std::any_of(mounts.begin(), mounts.end(), [&](const Mount& mount) {
    if (mount.type != type || mount.root != "/" || mount.is_read_only || mount.is_read_only_filesystem) return false;
    return std::none_of(mounts.begin(), mounts.end(), [&](const Mount& above) {
      const bool is_on_it = above.parent == mount.id && above.id != mount.id;
      const std::size_t head = mount.place == "/" ? 0 : mount.place.size();
      return is_on_it &&
             !(above.place.size() > head && is_meant_for_mounts(std::string_view(above.place).substr(head)));
    });
  });
}

bool is_in_device_list(std::string_view list, char kind, std::uint32_t major, std::uint32_t minor,
                       std::string_view access) {
  for (const auto line : split(list, '\n')) {
    const auto words = split_blanks(line);
    if (words.size() != 3 || (words[0] != "a" && words[0] != std::string_view(&kind, 1))) continue;
    const auto numbers = split(words[1], ':');
    if (numbers.size() != 2 || !matches(numbers[0], major) || !matches(numbers[1], minor)) continue;
    if (std::all_of(access.begin(), access.end(), [&](char c) { return words[2].find(c) != std::string_view::npos; }))
      return true;
  }
  return false;
}

}  // namespace virtuserns::showinfo
