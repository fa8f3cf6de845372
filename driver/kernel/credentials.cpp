#include "driver/kernel/credentials.h"

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

constexpr std::size_t kMaxStatus = 1024 * 1024;  // 65536 groups of up to eleven bytes each
constexpr std::size_t kMaxGroups = 65'536, kMaxPidNamespaces = 33;

template <class T>
bool read_numbers(std::string_view value, std::size_t most, std::vector<T>& into) {
  for (const auto word : split_blanks(value)) {
    const auto number = parse_number<T>(word);
    if (!number || into.size() == most) return false;
    into.push_back(*number);
  }
  return true;
}

bool read_ids(std::string_view value, IdSet& into) {
  std::vector<std::uint32_t> ids;
  if (!read_numbers(value, 4, ids) || ids.size() != 4) return false;
  into = {ids[0], ids[1], ids[2], ids[3]};
  return true;
}

template <class T>
bool read_one(std::string_view value, T& into, int base = 10) {
  const auto number = parse_number<T>(value, base);
  if (number) into = *number;
  return number.has_value();
}

// False: a line that is known says what cannot be.
bool take_line(std::string_view key, std::string_view value, Credentials& who) {
  if (key == "State") return value.empty() ? false : (who.state = value.front(), true);
  if (key == "Tgid") return read_one(value, who.thread_group);
  if (key == "PPid") return read_one(value, who.parent);
  if (key == "Uid") return read_ids(value, who.uid);
  if (key == "Gid") return read_ids(value, who.gid);
  if (key == "Groups") return read_numbers(value, kMaxGroups, who.groups);
  if (key == "NSpid") return read_numbers(value, kMaxPidNamespaces, who.ns_pids);
  if (key == "CapPrm") return read_one(value, who.permitted, 16);
  if (key == "CapEff") return read_one(value, who.effective, 16);
  if (key == "Seccomp") return read_one(value, who.seccomp_mode);
  if (key == "NoNewPrivs") return who.has_no_new_privileges = value == "1", true;
  if (key == "VmSize") who.has_memory = true;
  return true;
}

}  // namespace

std::optional<Credentials> parse_credentials(std::string_view text) {
  // The name is the first line and has its newlines escaped; nothing after it is the process's own.
  if (!text.starts_with("Name:\t")) return std::nullopt;
  Credentials who;
  const auto name_end = text.find('\n');
  who.name = text.substr(6, name_end == std::string_view::npos ? name_end : name_end - 6);
  if (name_end == std::string_view::npos) return std::nullopt;
  bool has_ids = false;
  for (const auto line : split(text.substr(name_end + 1), '\n')) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const auto key = line.substr(0, colon);
    if (!take_line(key, trim(line.substr(colon + 1)), who)) return std::nullopt;
    has_ids |= key == "Uid";
  }
  if (!has_ids) return std::nullopt;
  return who;
}

Result<Credentials> read_credentials(const DirFd& proc, pid_t pid) {
  const std::string text = TRY(read_kernel_file_at(proc, std::to_string(pid) + "/status", kMaxStatus));
  auto who = parse_credentials(text);
  if (!who) return fail(VIR_ERR_INTERNAL_ERROR, "status of process " + std::to_string(pid) + " is malformed");
  return std::move(*who);
}

}  // namespace virtuserns::kernel
