#include "driver/kernel/idmap.h"

#include "conf/base/file.h"

namespace virtuserns::kernel {

namespace {

std::string map_text(const IdMapLines& lines) {
  std::string text;
  for (const auto& line : lines)
    text += std::to_string(line.inside) + " " + std::to_string(line.outside) + " " + std::to_string(line.count) + "\n";
  return text;
}

}  // namespace

Result<void> write_id_maps(const DirFd& proc, pid_t pid, const IdMaps& maps) {
  const std::string process = std::to_string(pid);
  TRY(write_kernel_file_at(proc, process + "/uid_map", map_text(maps.uid)), "map user ids");
  TRY(write_kernel_file_at(proc, process + "/gid_map", map_text(maps.gid)), "map group ids");
  return {};
}

}  // namespace virtuserns::kernel
