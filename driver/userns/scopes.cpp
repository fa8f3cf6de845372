// Domains among systemd's units.
#include <utility>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/validate.h"
#include "driver/userns/backend.h"
#include "driver/userns/observe.h"

namespace virtuserns::userns {

// An administrator who names a parent of all groups has groups without systemd in mind.
bool Backend::wants_scope() const {
  if (!config_.cgroup_parent.empty() || paths_.cgroup != "/sys/fs/cgroup" || !is_systemd_here()) return false;
  // A user's systemd has groups of v2 to give, and none of v1.
  return !paths_.is_session || (host_.cgroup_mode == CgroupMode::kV2 && !paths_.user_systemd.empty());
}

// None: nobody makes one here.
std::optional<Scope> Backend::scope_of(const Run& run) {
  if (!wants_scope()) return std::nullopt;
  Scope scope = make_scope(run.live, run.started_ms, host_.cgroup_mode);
  if (!paths_.is_session) return scope;
  auto root = systemd_.own_group();
  if (!root) {
    log_info("userns", "no systemd of the user gives groups to domains: " + root.error().text);
    return std::nullopt;
  }
  scope.root = std::move(*root);
  return scope;
}

// What the user's systemd was given, of which a scope gets all.
std::vector<CgroupHierarchy> Backend::hierarchies_below(const std::string& root) const {
  std::vector<CgroupHierarchy> hierarchies;
  for (auto hierarchy : host_.hierarchies) {
    if (!hierarchy.is_v2) continue;
    hierarchy.controllers = read_controllers(hierarchy.mount + "/" + root);
    hierarchies.push_back(std::move(hierarchy));
  }
  return hierarchies;
}

// The controller has opened its sources meanwhile, and now makes its groups.
Result<void> Backend::place(const Scope& scope, const Launched& launched, const std::string& name) {
  TRY(systemd_.start_scope(scope, launched.pid, "Domain " + printable(name) + " of virtusernsd"));
  return controller::send_packet(launched.channel.get(), xdr::encode(controller::Placed{}));
}

void Backend::remember_scope(const Run& run) {
  if (run.scope_group.empty()) return;
  const std::lock_guard lock(scopes_mutex_);
  scope_groups_[run.uuid] = run.scope_group;
}

void Backend::forget_scope(const Uuid& uuid) {
  const std::lock_guard lock(scopes_mutex_);
  scope_groups_.erase(uuid);
}

std::string Backend::scope_group_of(const Uuid& uuid) const {
  const std::lock_guard lock(scopes_mutex_);
  const auto found = scope_groups_.find(uuid);
  return found == scope_groups_.end() ? "" : found->second;
}

// Only what is in a scope: machined counts the unit that a machine's init is in as the machine.
void Backend::list_machine(const RunPtr& run) {
  const auto domain = run->domain.lock();
  if (!domain || run->scope_group.empty() || paths_.is_session) return;
  Machine machine;
  {
    const Locked locked = lock(domain);
    if (locked->run != run || !locked->is_active()) return;
    machine = {machine_name(run->pid, locked->def.name), run->uuid, locked->boot.init_pid, "",
               locked->boot.host_links};
    for (const auto& fs : locked->def.filesystems)
      if (fs.type == FilesystemType::kMount && fs.target == "/" && !find_overlay(locked->def, fs))
        machine.root_directory = fs.source;
  }
  machines_.add(std::move(machine));
}

void Backend::unlist_machine(const Run& run) {
  const auto domain = run.domain.lock();
  if (!domain || run.scope_group.empty() || paths_.is_session) return;
  std::string name;
  {
    const Locked locked = lock(domain);
    name = locked->def.name;
  }
  machines_.remove(machine_name(run.pid, name));
}

}  // namespace virtuserns::userns
