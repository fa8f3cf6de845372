// One device of a domain that runs: the steps that it would have had at a start.
#include "conf/base/text.h"
#include "conf/validate.h"
#include "driver/userns/plan_parts.h"

namespace virtuserns::userns {

namespace {

Error at_a_start_only(const std::string& what) {
  return fail(VIR_ERR_OPERATION_UNSUPPORTED,
              what + " cannot be attached while the domain runs; use --config for its next start");
}

// What needs a process, or a lock, for as long as the domain lives.
Result<void> refuse_unpluggable(const DomainDef& only) {
  for (const auto& fs : only.filesystems) {
    const std::string name = "<filesystem> at " + quote(fs.target);
    if (is_image(fs)) return at_a_start_only(name + ": an image or a file system on a device");
    if (find_overlay(only, fs)) return at_a_start_only(name + ": an overlay");
    if (fs.type == FilesystemType::kBind) return at_a_start_only(name + ": type 'bind'");
  }
  for (const auto& interface : only.interfaces)
    if (interface.type == InterfaceType::kUser) return at_a_start_only("<interface type='user'>");
  // Back on its way the container could give another for it.
  for (const auto& hostdev : only.hostdevs)
    if (hostdev.type == HostdevType::kCapsNet) return at_a_start_only("<hostdev type='net'>");
  return {};
}

}  // namespace

Result<DevicePlan> make_device_plan(const DomainDef& only, const IdMaps& maps, const PlanContext& context) {
  if (context.paths.is_session) return at_a_start_only("a device of a session's domain");
  TRY(refuse_unpluggable(only));
  const auto host_uid = to_host(maps.uid, 0), host_gid = to_host(maps.gid, 0);
  if (!host_uid || !host_gid) return unsupported("idmap maps no root of the container (start='0')");
  Draft draft{only, maps, context, {}, 0};
  draft.plan().host_uid = *host_uid;
  draft.plan().host_gid = *host_gid;
  TRY(plan_filesystems(draft));
  TRY(plan_devices(draft));
  TRY(plan_network(draft));
  DevicePlan made;
  made.sources = std::move(draft.plan().before);
  made.ask.from_parent = std::move(draft.plan().from_parent);
  made.ask.inside = std::move(draft.plan().inside);
  made.ask.rules = own_device_rules(draft);
  made.messages = std::move(draft.made.messages);
  return made;
}

}  // namespace virtuserns::userns
