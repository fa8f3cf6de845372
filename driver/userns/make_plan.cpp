#include "driver/userns/make_plan.h"

#include "conf/base/text.h"
#include "driver/userns/plan_parts.h"
#include "driver/userns/scope.h"

namespace virtuserns::userns {

namespace {

AfterExit after_exit(LifecycleAction action) {
  const bool restarts = action == LifecycleAction::kRestart || action == LifecycleAction::kRenameRestart ||
                        action == LifecycleAction::kCoredumpRestart;
  return restarts ? AfterExit::kRestart : AfterExit::kDestroy;
}

void plan_identity(Draft& draft, std::uint32_t host_uid, std::uint32_t host_gid) {
  const auto& def = draft.def;
  auto& plan = draft.plan();
  plan.name = def.name;
  plan.uuid = def.uuid.bytes;
  plan.host_uid = host_uid;
  plan.host_gid = host_gid;
  const std::string stem = draft.context.paths.driver_run + "/" + format_uuid(def.uuid);
  plan.socket_path = stem + ".sock";
  if (!draft.context.paths.is_session) plan.plug_path = stem + ".plug";
  plan.exit_record_path = stem + ".exit";
  plan.stage_path = stem + ".stage";
  for (const auto& console : def.consoles)
    plan.consoles.push_back({console.target_port, console.log_file, console.log_append.value_or(false),
                             terminal_path(draft.context.paths, def.uuid, console)});
  if (plan.consoles.empty()) plan.consoles.push_back({});
  plan.after_poweroff = after_exit(def.on_poweroff);
  plan.after_reboot = after_exit(def.on_reboot);
  plan.after_crash = after_exit(def.on_crash);
}

}  // namespace

Result<MadePlan> make_plan(const DomainDef& def, const IdMaps& maps, const PlanContext& context) {
  if (!context.host.has_user_namespaces)
    return unsupported("this host has user namespaces switched off (user.max_user_namespaces): no domain can start");
  const auto host_uid = to_host(maps.uid, 0), host_gid = to_host(maps.gid, 0);
  if (!host_uid || !host_gid) return unsupported("idmap maps no root of the container (start='0')");
  if (*host_uid == 0 || *host_gid == 0) return unsupported("idmap maps root of the container to root of the host");

  Draft draft{def, maps, context, {}, 1};
  plan_identity(draft, *host_uid, *host_gid);
  plan_groups(draft);
  draft.plan().from_parent.push_back(IdMapStep{maps});
  TRY(plan_mounts(draft));
  TRY(plan_devices(draft));
  draft.plan().inside.push_back(LinkUpStep{"lo"});
  TRY(plan_network(draft));
  TRY(plan_init(draft));
  return std::move(draft.made);
}

std::string terminal_path(const Paths& paths, const Uuid& uuid, const ConsoleDef& console) {
  return paths.is_session || console.target_port != 0 ? "" : paths.driver_run + "/" + format_uuid(uuid) + ".tty";
}

std::string group_name(const DomainDef& def) { return "virtuserns-" + format_uuid(def.uuid); }

std::string group_path(const DomainDef& def, const DaemonConfig& config) {
  std::string path;
  const auto append = [&](std::string_view part) {
    for (const auto name : split(part, '/'))
      if (!name.empty()) path += (path.empty() ? "" : "/") + std::string(name);
  };
  append(config.cgroup_parent);
  append(def.resource.partition.empty() ? "/machine" : def.resource.partition);
  append(group_name(def));
  return path;
}

std::string group_path(const DomainDef& def, const DaemonConfig& config, const std::string& scope_group,
                       const CgroupHierarchy& hierarchy) {
  if (scope_group.empty() || !is_systemds(hierarchy)) return group_path(def, config);
  return scope_group + "/container";
}

std::string guest_hostname(const std::string& name) {
  std::string host;
  for (const char c : name) {
    const bool keeps = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    if (keeps && !(c == '-' && host.empty()) && host.size() < 64) host += c;
  }
  return host;
}

}  // namespace virtuserns::userns
