#include "driver/kernel/process.h"

#include <malloc.h>
#include <sys/mman.h>

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {
constexpr std::size_t kMaxStatus = 64 * 1024;

// Of /proc/PID/stat: from field 3 on.
std::vector<std::string_view> fields_after_name(std::string_view text) {
  const auto bracket = text.rfind(')');
  return bracket == std::string_view::npos ? std::vector<std::string_view>() : split_blanks(text.substr(bracket + 1));
}

Result<std::string> read_stat(const DirFd& proc, pid_t pid) {
  return read_kernel_file_at(proc, std::to_string(pid) + "/stat", kMaxStatus);
}
}  // namespace

void shrink_heap() { ::malloc_trim(0); }

void shrink_stack() {
  constexpr std::uintptr_t kPage = 4096, kDepth = 128 * 1024, kInUse = 2 * kPage;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) & ~(kPage - 1);
  // ENOMEM when the stack has never been as deep: what there is of it is given back all the same.
  (void)::madvise(reinterpret_cast<void*>(here - kDepth), kDepth - kInUse, MADV_DONTNEED);
}

std::optional<ProcessStatus> parse_process_status(std::string_view text) {
  ProcessStatus status;
  bool has_pids = false;
  for (const auto line : split(text, '\n')) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const auto key = line.substr(0, colon);
    const auto value = trim(line.substr(colon + 1));
    if (key == "NSpid") {
      for (const auto word : split_blanks(value)) {
        const auto pid = parse_number<pid_t>(word);
        if (!pid || status.ns_pids.size() >= 33) return std::nullopt;  // the kernel nests 32 deep
        status.ns_pids.push_back(*pid);
      }
      has_pids = !status.ns_pids.empty();
    } else if (key == "SigCgt" || key == "SigBlk" || key == "SigIgn") {
      const auto mask = parse_number<std::uint64_t>(value, 16);
      if (!mask) return std::nullopt;
      (key == "SigCgt" ? status.caught : key == "SigBlk" ? status.blocked : status.ignored) = *mask;
    }
  }
  if (!has_pids) return std::nullopt;
  return status;
}

std::optional<std::uint64_t> parse_start_time(std::string_view text) {
  const auto fields = fields_after_name(text);
  if (fields.size() < 20) return std::nullopt;
  return parse_number<std::uint64_t>(fields[19]);
}

std::optional<Family> parse_family(std::string_view text) {
  const auto fields = fields_after_name(text);
  if (fields.size() < 3) return std::nullopt;
  const auto parent = parse_number<pid_t>(fields[1]), group = parse_number<pid_t>(fields[2]);
  if (!parent || !group) return std::nullopt;
  return Family{*parent, *group};
}

Result<ProcessStatus> read_process_status(const DirFd& proc, pid_t pid) {
  const std::string text = TRY(read_kernel_file_at(proc, std::to_string(pid) + "/status", kMaxStatus));
  auto status = parse_process_status(text);
  if (!status) return fail(VIR_ERR_INTERNAL_ERROR, "status of process " + std::to_string(pid) + " is malformed");
  return std::move(*status);
}

Result<std::uint64_t> read_start_time(const DirFd& proc, pid_t pid) {
  const auto time = parse_start_time(TRY(read_stat(proc, pid)));
  if (!time) return fail(VIR_ERR_INTERNAL_ERROR, "stat of process " + std::to_string(pid) + " is malformed");
  return *time;
}

Result<Family> read_family(const DirFd& proc, pid_t pid) {
  const auto family = parse_family(TRY(read_stat(proc, pid)));
  if (!family) return fail(VIR_ERR_INTERNAL_ERROR, "stat of process " + std::to_string(pid) + " is malformed");
  return *family;
}

}  // namespace virtuserns::kernel
