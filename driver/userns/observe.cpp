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

// By identity, because "/." and links name it too: shifted to the domain's ids, all files of the host would be owned by
// container root.
bool is_host_root(const struct stat& st) {
  struct stat host {};
  return ::stat("/", &host) == 0 && st.st_dev == host.st_dev && st.st_ino == host.st_ino;
}

// `name` is how errors call it.
Result<FilesystemFacts> observe_directory(const std::string& path, const std::string& name) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return sys_fail(name);
  if (!S_ISDIR(st.st_mode)) return fail(VIR_ERR_CONFIG_UNSUPPORTED, name + " is no directory");
  if (is_host_root(st))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, name + " is the host's own root directory, which no domain is given");
  FilesystemFacts facts;
  facts.owner_uid = st.st_uid;
  facts.owner_gid = st.st_gid;
  return facts;
}

// Of what is there of an overlay, which the controller makes under these names and in this order.
bool stat_own_part(const std::string& source, struct stat& st) {
  for (const char* name : {"/work", "/upper"})
    if (::lstat((source + name).c_str(), &st) == 0) return true;
  return false;
}

Result<FilesystemFacts> observe_overlay(const FilesystemDef& fs, const OverlayDef& overlay, const std::string& name) {
  FilesystemFacts facts = TRY(observe_directory(fs.source, name));
  struct stat st {};
  facts.is_new = !stat_own_part(fs.source, st);
  facts.owner_uid = st.st_uid;
  facts.owner_gid = st.st_gid;
  for (const auto& lower : overlay.lowers)
    facts.lowers.push_back(
        TRY(observe_directory(lower, "<userns:lower> " + quote(lower) + " of <filesystem> at " + quote(fs.target))));
  return facts;
}

Result<FilesystemFacts> observe_filesystem(const DomainDef& def, const FilesystemDef& fs) {
  FilesystemFacts facts;
  if (fs.type != FilesystemType::kMount && fs.type != FilesystemType::kFile && fs.type != FilesystemType::kBlock)
    return facts;
  // It may lie in a folder that only its owner may enter; the controller will open it with all privileges.
  const kernel::Raised raised(privileges_of_workers());
  const std::string name = "source " + quote(fs.source) + " of <filesystem> at " + quote(fs.target);
  if (const auto* overlay = find_overlay(def, fs)) return observe_overlay(fs, *overlay, name);
  if (fs.type == FilesystemType::kMount) return observe_directory(fs.source, name);
  struct stat st {};
  if (::stat(fs.source.c_str(), &st) != 0) return sys_fail(name);
  const auto wrong = [&](const char* wanted) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, name + " is no " + wanted); };
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

// Of a user's own daemon: where it may make the domain's group, that is below the nearest part of its path that is there. Of v2
// only what reaches that part can be limited there.
bool take_delegated(CgroupHierarchy& hierarchy, const std::string& group) {
  std::string path = hierarchy.mount + "/" + group;
  while (path.size() > hierarchy.mount.size()) {
    path.resize(path.rfind('/'));
    if (::faccessat(AT_FDCWD, path.c_str(), W_OK | X_OK, AT_EACCESS) == 0) {
      if (hierarchy.is_v2) hierarchy.controllers = read_controllers(path);
      return true;
    }
    if (errno != ENOENT) return false;
  }
  return false;
}

}  // namespace

std::vector<std::string> read_controllers(const std::string& group) {
  std::vector<std::string> controllers;
  if (const auto names = read_kernel_file(group + "/cgroup.controllers", 4096))
    for (const auto name : split_blanks(*names)) controllers.emplace_back(name);
  return controllers;
}

std::optional<struct stat> stat_root_tree(const DomainDef& def) {
  for (const auto& fs : def.filesystems) {
    if (fs.target != "/" || fs.type != FilesystemType::kMount) continue;
    struct stat st {};
    const kernel::Raised raised(privileges_of_workers());  // it may lie in a folder that only its owner may enter
    const auto* overlay = find_overlay(def, fs);
    if (overlay && stat_own_part(fs.source, st)) return st;
    const auto& path = overlay ? overlay->lowers.front() : fs.source;
    if (::stat(path.c_str(), &st) == 0) return st;
  }
  return std::nullopt;
}

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
  if (paths.is_session) {
    context.host.hierarchies.clear();
    for (auto hierarchy : host.hierarchies)
      if (take_delegated(hierarchy, group_path(def, config)))
        context.host.hierarchies.push_back(std::move(hierarchy));
  }
  context.config = config;
  context.paths = paths;
  if (def.userns.owner && !def.userns.owner->has_host_sources) {
    // Not looked at from here, where everything can be seen: the controller does it as the owner.
    const auto account = TRY(find_account(*def.userns.owner));
    context.source_user = SourceUser{account.uid, account.gid};
    context.filesystems.resize(def.filesystems.size());
  } else {
    for (const auto& fs : def.filesystems) context.filesystems.push_back(TRY(observe_filesystem(def, fs)));
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
