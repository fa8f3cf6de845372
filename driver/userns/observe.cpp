#include "driver/userns/observe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/privileges.h"
#include "conf/validate.h"
#include "driver/kernel/apparmor.h"
#include "driver/kernel/caps.h"
#include "driver/userns/accounts.h"
#include "xml/node.h"

namespace virtuserns::userns {

namespace {

// Nowhere else: it runs in a jail that has /usr and nothing more of the host.
constexpr const char* kStorageDaemon = "/usr/bin/qemu-storage-daemon";

Result<FilesystemFacts> observe_filesystem(const FilesystemDef& fs) {
  FilesystemFacts facts;
  if (fs.type != FilesystemType::kMount && fs.type != FilesystemType::kFile && fs.type != FilesystemType::kBlock)
    return facts;
  // It may lie in a folder that only its owner may enter; the controller will open it with all privileges.
  const kernel::Raised raised(privileges_of_workers());
  struct stat st {};
  if (::stat(fs.source.c_str(), &st) != 0)
    return sys_fail("source " + quote(fs.source) + " of <filesystem> at " + quote(fs.target));
  const auto wrong = [&](const char* wanted) {
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "source " + quote(fs.source) + " of <filesystem> at " + quote(fs.target) + " is no " + wanted);
  };
  if (fs.type == FilesystemType::kMount) {
    if (!S_ISDIR(st.st_mode)) return wrong("directory");
    // By identity, because "/." and links name it too: shifted to the domain's ids, all files of the host would be owned
    // by container root.
    if (struct stat host{}; ::stat("/", &host) == 0 && st.st_dev == host.st_dev && st.st_ino == host.st_ino)
      return fail(VIR_ERR_CONFIG_UNSUPPORTED, "source " + quote(fs.source) + " of <filesystem> at " +
                                                  quote(fs.target) +
                                                  " is the host's own root directory, which no domain is given");
    facts.owner_uid = st.st_uid;
    facts.owner_gid = st.st_gid;
    return facts;
  }
  if (fs.type == FilesystemType::kFile && !S_ISREG(st.st_mode)) return wrong("regular file");
  if (fs.type == FilesystemType::kBlock && !S_ISBLK(st.st_mode)) return wrong("block device");
  return facts;
}

void observe_groups(PlanContext& context) {
  for (const auto& hierarchy : context.host.hierarchies) {
    const auto has = [&](const char* controller) {
      return std::find(hierarchy.controllers.begin(), hierarchy.controllers.end(), controller) !=
             hierarchy.controllers.end();
    };
    const auto exists = [&](const char* file) { return ::access((hierarchy.mount + "/" + file).c_str(), F_OK) == 0; };
    const auto first_line = [&](std::string& to, const std::string& file) {
      const auto text = read_kernel_file(hierarchy.mount + "/" + file, 4096);
      if (text && !trim(*text).empty()) to = trim(*text);
    };
    if (has("cpuset")) {
      // Of the nearest group that has any: a partition that is still to be made gets its parent's.
      first_line(context.cpuset_cpus, hierarchy.is_v2 ? "cpuset.cpus.effective" : "cpuset.effective_cpus");
      first_line(context.cpuset_mems, hierarchy.is_v2 ? "cpuset.mems.effective" : "cpuset.effective_mems");
    }
    if (has("memory") && !hierarchy.is_v2) context.has_swap_limit = exists("memory.memsw.limit_in_bytes");
    // bfq's weight is a file of every group but the topmost, which shows bfq by its counters.
    if (has("blkio"))
      context.blkio_weight_file = exists("blkio.bfq.io_serviced") ? "blkio.bfq.weight"
                                  : exists("blkio.weight")        ? "blkio.weight"
                                                                  : "";
  }
}

// Of a user's own daemon: where it may make the domain's group, that is below the nearest part of its path that is there.
bool is_delegated(const CgroupHierarchy& hierarchy, const std::string& group) {
  std::string path = hierarchy.mount + "/" + group;
  while (path.size() > hierarchy.mount.size()) {
    path.resize(path.rfind('/'));
    if (::faccessat(AT_FDCWD, path.c_str(), W_OK | X_OK, AT_EACCESS) == 0) return true;
    if (errno != ENOENT) return false;
  }
  return false;
}

}  // namespace

std::optional<DeviceNumber> device_number(const std::string& path) {
  struct stat st {};
  if (path.empty() || ::stat(path.c_str(), &st) != 0 || !(S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)))
    return std::nullopt;
  return DeviceNumber{S_ISBLK(st.st_mode), major(st.st_rdev), minor(st.st_rdev)};
}

std::string bridge_of_network(const std::string& network) {
  if (network.empty() || network.find('/') != std::string::npos) return {};
  for (const char* directory : {"/run/libvirt/network/", "/var/run/libvirt/network/", "/var/lib/libvirt/network/"}) {
    const auto text = read_file(directory + network + ".xml", 1024 * 1024);
    if (!text) continue;
    const auto document = xml::Document::parse(*text);
    if (!document) continue;
    const auto root = document->root();
    const auto definition = root.is("network") ? root : root.child("network");
    if (definition) return definition.child("bridge").attribute_or("name");
  }
  return {};
}

Result<PlanContext> observe(const DomainDef& def, const HostFacts& host, const DaemonConfig& config,
                            const Paths& paths) {
  PlanContext context;
  context.host = host;
  if (paths.is_session)
    std::erase_if(context.host.hierarchies,
                  [group = group_path(def, config)](const auto& h) { return !is_delegated(h, group); });
  context.config = config;
  context.paths = paths;
  if (def.userns.owner && !def.userns.owner->has_host_sources) {
    // Not looked at from here, where everything can be seen: the controller does it as the owner.
    const auto account = TRY(find_account(*def.userns.owner));
    context.source_user = SourceUser{account.uid, account.gid};
    context.filesystems.resize(def.filesystems.size());
  } else {
    for (const auto& fs : def.filesystems) context.filesystems.push_back(TRY(observe_filesystem(fs)));
  }
  if (std::any_of(def.filesystems.begin(), def.filesystems.end(), is_image)) {
    context.image_prober = paths.controller.substr(0, paths.controller.rfind('/')) + "/virtuserns-image";
    if (::access(kStorageDaemon, X_OK) == 0) context.storage_daemon = kStorageDaemon;
  }
  const auto add = [&](const std::string& path) {
    if (const auto number = device_number(path)) context.devices[path] = *number;
  };
  for (const auto& disk : def.disks) add(disk.source);
  for (const auto& hostdev : def.hostdevs) add(hostdev.source);
  for (const auto& device : def.blkio.devices) add(device.path);
  for (const auto& interface : def.interfaces)
    if (interface.type == InterfaceType::kNetwork)
      context.network_bridges[interface.source] = bridge_of_network(interface.source);
  observe_groups(context);
  context.apparmor_profiles = kernel::read_apparmor_profiles(paths.sys);
  return context;
}

}  // namespace virtuserns::userns
