#include "driver/kernel/idmap.h"

#include "conf/base/file.h"

namespace virtuserns::kernel {

Result<void> write_id_maps(const DirFd& proc, pid_t pid, const IdMaps& maps) {
  const std::string process = std::to_string(pid);
  TRY(write_kernel_file_at(proc, process + "/uid_map", format_kernel_map(maps.uid)), "map user ids");
  TRY(write_kernel_file_at(proc, process + "/gid_map", format_kernel_map(maps.gid)), "map group ids");
  return {};
}

}  // namespace virtuserns::kernel
