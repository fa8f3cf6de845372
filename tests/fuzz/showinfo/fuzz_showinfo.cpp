// What processes and file systems of containers write into /proc, and the attribute of an access control list.
#include <cstdint>
#include <string>
#include <string_view>

#include "driver/kernel/credentials.h"
#include "tools/showinfo/access.h"
#include "tools/showinfo/host.h"
#include "tools/showinfo/mounts.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto who = kernel::parse_credentials(text); who && who->groups.size() > 65'536) __builtin_trap();
  const auto mounts = showinfo::parse_mountinfo(text);
  (void)showinfo::has_whole_view(mounts, "proc");
  (void)showinfo::is_in_device_list(text, 'c', 1, 3, "rw");
  if (const auto acl = showinfo::parse_acl(text)) {
    showinfo::FileFacts file;
    file.mode = 0100070;
    file.acl = *acl;
    (void)showinfo::check_access({}, file, showinfo::kRead);
  }
  if (const auto uuid = showinfo::parse_mark(std::string(text)); uuid && uuid->size() != 36) __builtin_trap();
  return 0;
}
