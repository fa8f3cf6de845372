#include "conf/owner.h"

#include <algorithm>

#include "conf/base/text.h"
#include "conf/validate.h"
#include "conf/validate_parts.h"

namespace virtuserns {

namespace {

constexpr std::size_t kMaxNameBytes = 256;

Error refuse(const std::string& what, const std::string& remedy) {
  return fail(VIR_ERR_ACCESS_DENIED, what + ", which the owner of a domain may not write: " + remedy);
}

const char* kAsk = "leave it out, or have an administrator define the domain";

Result<void> check_filesystem(const FilesystemDef& fs) {
  const std::string element = "<filesystem> at " + quote(fs.target);
  // Others are told apart from it by its name.
  if (has_dot_dot(fs.source)) return refuse(element + " has '..' in its source", "name the directory itself");
  switch (fs.type) {
    case FilesystemType::kMount:  // opened as the owner, see SourceStep::user
    case FilesystemType::kBind:   // of the container's own tree
    case FilesystemType::kRam:
      break;
    case FilesystemType::kFile:
    case FilesystemType::kBlock:
      return refuse(element + " is an image or device, whose file system the host's kernel would read",
                    "use a directory (type='mount')");
    case FilesystemType::kTemplate:
    case FilesystemType::kVolume:
      return refuse(element + " is a template or volume", "use a directory (type='mount')");
  }
  if (!fs.driver_type.empty() && fs.driver_type != "path") return refuse(element + " has a <driver>", kAsk);
  if (!fs.source_pool.empty() || !fs.source_volume.empty()) return refuse(element + " names a pool", kAsk);
  return {};
}

Result<void> check_devices(const DomainDef& def) {
  for (const auto& fs : def.filesystems) TRY(check_filesystem(fs));
  if (!def.userns.images.empty()) return refuse("<userns:image> is about an image", "use a directory (type='mount')");
  // What lies below is opened as the host's root and shown to the domain as its own, whatever it is.
  if (!def.userns.overlays.empty())
    return refuse("<userns:overlay> shows directories of the host", "use a directory of your own (type='mount')");
  if (!def.disks.empty()) return refuse("<disk> gives a block device of the host", "use a <filesystem>");
  if (!def.hostdevs.empty()) return refuse("<hostdev> gives a device of the host", kAsk);
  if (!def.interfaces.empty())
    return refuse("<interface> makes a link on the host",
                  "leave it out: the domain has a network of its own with lo");
  for (const auto& console : def.consoles) {
    if (!console.log_file.empty())
      return refuse("<log file> of <console> is written by the host's root", "leave it out, and read the console");
    if (console.type != "pty") return refuse("<console type=" + quote(console.type) + ">", "use type='pty'");
  }
  return {};
}

Result<void> check_security(const DomainDef& def) {
  if (def.features.capabilities_policy == CapabilitiesPolicy::kAllow)
    return refuse("<capabilities policy='allow'> gives more than the default", "use policy='default' or 'deny'");
  for (const auto& [name, is_on] : def.features.capabilities)
    if (is_on) return refuse("<capabilities> switches " + quote(name) + " on", "switch capabilities off only");
  const auto& seccomp = def.userns.seccomp;
  if (seccomp.has_nesting || !seccomp.allow.empty())
    return refuse("<userns:seccomp> allows more than the default", "use <userns:deny> only");
  if (!seccomp.is_logged) return refuse("<userns:seccomp log='no'> keeps refusals out of the log", kAsk);
  if (!def.seclabels.empty()) return refuse("<seclabel> chooses a profile", kAsk);
  if (!def.shared_namespaces.empty()) return refuse("<lxc:namespace> shares a namespace", kAsk);
  return {};
}

Result<void> check_resources(const DomainDef& def, const OwnedRules& rules) {
  if (!def.emulator.empty() && def.emulator != rules.emulator)
    return refuse("<emulator>" + def.emulator + "</emulator> is another program", "leave it out");
  if (!def.resource.partition.empty() && def.resource.partition != "/machine")
    return refuse("<partition> chooses a control group", "leave it out");
  if (!def.blkio.devices.empty()) return refuse("<device> of <blkiotune> names a device of the host", kAsk);
  if (def.userns.pids_limit.value_or(0) > rules.pids_limit)
    return refuse("<userns:pids> is above " + std::to_string(rules.pids_limit), "lower it (pids_limit)");
  return {};
}

}  // namespace

std::string describe_owner(const OwnerDef& owner) {
  return owner.uid ? "uid " + std::to_string(*owner.uid) : "user " + quote(owner.user);
}

bool is_owner(const OwnerDef& owner, uid_t uid, const std::string& user) {
  return owner.uid ? *owner.uid == uid : !owner.user.empty() && owner.user == user;
}

Result<void> validate_owner(const OwnerDef& owner) {
  if (owner.user.empty() == !owner.uid.has_value())
    return fail(VIR_ERR_XML_ERROR, "<userns:owner> needs user='NAME' or uid='N', and not both");
  if (owner.user == "root" || owner.uid == 0u)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "<userns:owner>: root owns no domain; leave the element out");
  // One that is a number could be taken for a uid: of an account without a name, for instance.
  const bool is_number = !owner.user.empty() && std::all_of(owner.user.begin(), owner.user.end(),
                                                            [](char c) { return c >= '0' && c <= '9'; });
  if (is_number)
    return fail(VIR_ERR_XML_ERROR, "<userns:owner user=" + quote(owner.user) + ">: use uid='N' for a number");
  if (owner.user.size() > kMaxNameBytes || owner.user.find_first_of(":/ \t\n") != std::string::npos)
    return fail(VIR_ERR_XML_ERROR, "<userns:owner user=" + quote(owner.user) + "> is no name of an account");
  return {};
}

Result<void> check_owned(const DomainDef& def, const OwnedRules& rules) {
  // All there is: with a new field this does not compile until somebody has decided here whether an owner may write it.
  [[maybe_unused]] const auto& [virt_type, id, name, uuid, has_uuid, title, description, metadata, max_memory,
                                current_memory, blkio, memtune, vcpu, cputune, numatune, resource, os, idmap,
                                features, clock, on_poweroff, on_reboot, on_crash, emulator, disks, filesystems,
                                interfaces, consoles, hostdevs, kept_devices, seclabels, shared_namespaces, userns,
                                kept] = def;
  [[maybe_unused]] const auto& [pids_limit, id_count, id_group, seccomp, owner, images, overlays] = def.userns;
  if (!def.userns.owner) return refuse("no <userns:owner>", "name yourself there");
  if (def.userns.owner->has_host_sources)
    return refuse("<userns:owner sources='host'>", "leave 'sources' out, or have an administrator define the domain");
  if (!def.userns.id_group.empty()) return refuse("<userns:ids group=''> shares ids", "leave 'group' out");
  TRY(check_devices(def));
  TRY(check_security(def));
  TRY(check_resources(def, rules));
  if (const auto unused = unhonoured(def); !unused.empty()) return refuse(unused.front(), "leave it out");
  return {};
}

}  // namespace virtuserns
