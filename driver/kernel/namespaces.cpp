#include "driver/kernel/namespaces.h"

#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

namespace virtuserns::kernel {

namespace {

Result<NsFd> related(const NsFd& ns, unsigned long request, const char* what) {
  NsFd found(::ioctl(ns.get(), request));
  if (!found) return sys_fail(what);
  return found;
}

}  // namespace

Result<std::uint64_t> id_of_namespace(const NsFd& ns) {
  struct stat st {};
  if (::fstat(ns.get(), &st) != 0) return sys_fail("look at namespace");
  return std::uint64_t{st.st_ino};
}

Result<NsFd> parent_of_namespace(const NsFd& ns) { return related(ns, NS_GET_PARENT, "parent of namespace"); }

Result<NsFd> owner_of_namespace(const NsFd& ns) { return related(ns, NS_GET_USERNS, "owner of namespace"); }

}  // namespace virtuserns::kernel
