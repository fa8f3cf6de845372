#include "driver/controller/plugs.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "conf/base/text.h"
#include "driver/controller/node_folder.h"
#include "driver/kernel/shadow.h"
#include "driver/controller/tree.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/device_filter.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

bool is_plug(const ParentStep& step) {
  return std::holds_alternative<BindStep>(step) || std::holds_alternative<TmpfsStep>(step) ||
         std::holds_alternative<DeviceNodeStep>(step) || std::holds_alternative<VethStep>(step) ||
         std::holds_alternative<MacvlanStep>(step);
}

std::uint32_t* source_of(ParentStep& step) {
  if (auto* bind = std::get_if<BindStep>(&step)) return &bind->source_id;
  if (auto* node = std::get_if<DeviceNodeStep>(&step)) return &node->source_id;
  return nullptr;
}

void set_loose(ParentStep& step) {
  std::visit(
      [](auto& s) {
        if constexpr (requires { s.is_loose; }) s.is_loose = true;
      },
      step);
}

bool is_of(const DeviceRule& rule, const struct stat& node) {
  return rule.kind == (S_ISBLK(node.st_mode) ? DeviceKind::kBlock : DeviceKind::kCharacter) &&
         rule.major == major(node.st_rdev) && rule.minor == minor(node.st_rdev);
}

Error at_a_start_only(const std::string& place, const char* why) {
  return fail(VIR_ERR_OPERATION_UNSUPPORTED, quote(place) + " cannot be taken from the running domain: " + why +
                                                 "; use --config to take it out of the next start");
}

}  // namespace

void Plugs::booted(const Boot& boot) {
  user_ns_ = NsFd(::fcntl(boot.user_ns.get(), F_DUPFD_CLOEXEC, 3));
  net_ns_ = boot.net_ns;
  host_ends_.clear();
  dead_nodes_.clear();
  macvlans_ = boot.macvlans;
  std::size_t next = 0;
  for (const auto& step : plan_.from_parent) {
    const bool has_end = std::holds_alternative<VethStep>(step) || std::holds_alternative<LentLinkStep>(step);
    if (has_end && next < boot.host_ends.size()) host_ends_[place_of(step)] = boot.host_ends[next++];
  }
  for (auto& [place, kept] : plugged_) {
    kept.mount.reset();
    kept.link.reset();
  }
  for (const auto& [place, mount] : boot.loose) plugged_[place].mount = mount;
}

const ParentStep* Plugs::find(const std::string& place) const {
  const auto found = std::find_if(plan_.from_parent.begin(), plan_.from_parent.end(),
                                  [&](const ParentStep& step) { return !place.empty() && place_of(step) == place; });
  return found == plan_.from_parent.end() ? nullptr : &*found;
}

Places Plugs::places() const {
  Places places;
  for (const auto& step : plan_.from_parent)
    if (auto place = place_of(step); !place.empty()) places.all.push_back(std::move(place));
  for (const auto& [place, kept] : plugged_) places.plugged.push_back(place);
  return places;
}

// Init's number is its own as long as it has not ended, which is asked when everything that it leads to is open.
Result<Inside> Plugs::open_inside(const PidFd& init, pid_t pid) const {
  Inside inside;
  inside.user = NsFd(::fcntl(user_ns_.get(), F_DUPFD_CLOEXEC, 3));
  if (!inside.user) return sys_fail("keep namespace");
  inside.mount = TRY(kernel::open_namespace(host_.proc, pid, "mnt"));
  inside.net = TRY(kernel::open_namespace(host_.proc, pid, "net"));
  inside.host_uid = plan_.host_uid;
  inside.host_gid = plan_.host_gid;
  if (kernel::has_ended(init)) return fail(VIR_ERR_OPERATION_INVALID, "the domain is between two boots");
  return inside;
}

// The network has to be that of the boot: in one that init has made itself the names and numbers of the host mean nothing.
Result<Inside> Plugs::enter(const PidFd& init, pid_t pid) const {
  Inside inside = TRY(open_inside(init, pid));
  if (TRY(number_of(inside.net)) != net_ns_)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "init of the domain has left the network that it was started with");
  return inside;
}

Result<PasswordSet> Plugs::set_password(const PasswordAsk& ask, const PidFd& init, pid_t pid) const {
  Inside inside = TRY(open_inside(init, pid));
  // What the stem may not write at the host's /etc the container may at its own, and no more than that.
  for (const auto& step : plan_.inside)
    if (const auto* apparmor = std::get_if<ApparmorStep>(&step)) inside.profile = apparmor->profile;
  TRY(do_inside(host_, inside, [&]() -> Result<void> {
    const DirFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) return sys_fail("open the root");
    return kernel::set_password_below(root, ask.user, ask.hash);
  }));
  return PasswordSet{};
}

Result<void> Plugs::check(const PlugAsk& ask) const {
  if (ask.from_parent.size() != 1 || !is_plug(ask.from_parent.front()))
    return fail(VIR_ERR_INTERNAL_ERROR, "no device that can be plugged in");
  const std::string place = place_of(ask.from_parent.front());
  if (place.empty()) return fail(VIR_ERR_INTERNAL_ERROR, "a device without a place");
  if (find(place)) return fail(VIR_ERR_OPERATION_INVALID, quote(place) + " of the container is taken already");
  for (const auto& step : ask.inside)
    if (link_of(step) != place) return fail(VIR_ERR_INTERNAL_ERROR, "a step of another device");
  return {};
}

Result<void> Plugs::change_rules(const std::vector<DeviceRule>& gone, const std::vector<DeviceRule>& added) {
  if (gone.empty() && added.empty()) return {};
  for (auto& step : plan_.before) {
    auto* group = std::get_if<CgroupStep>(&step);
    if (!group || !group->device_rules) continue;
    std::vector<DeviceRule> rules = *group->device_rules;
    for (const auto& rule : gone)  // one of each: another device may have brought the same
      if (const auto found = std::find(rules.begin(), rules.end(), rule); found != rules.end()) rules.erase(found);
    rules.insert(rules.end(), added.begin(), added.end());
    const auto made = std::find_if(host_.groups.begin(), host_.groups.end(), [&](const kernel::Cgroup& other) {
      return other.spec().mount == group->mount && other.spec().path == group->path;
    });
    if (made != host_.groups.end())
      TRY(kernel::change_devices(*made, *group->device_rules, rules), "rules of devices");
    group->device_rules = std::move(rules);
  }
  return {};
}

// Of what was plugged in, what came with it. Of a node of the start all of its device, by what we hold of it: the host's may be another by now, or gone.
// None that every domain has, or another node of that device needs.
std::vector<DeviceRule> Plugs::rules_of(const ParentStep& step) const {
  if (const auto kept = plugged_.find(place_of(step)); kept != plugged_.end() && !kept->second.rules.empty())
    return kept->second.rules;
  const auto facts_of = [&](const ParentStep& other) -> const struct stat* {
    const auto* node = std::get_if<DeviceNodeStep>(&other);
    const auto source = node ? host_.sources.find(node->source_id) : host_.sources.end();
    return source == host_.sources.end() ? nullptr : &source->second.facts;
  };
  const auto* facts = facts_of(step);
  if (!facts) return {};
  for (const auto& other : plan_.from_parent)
    if (const auto* others = facts_of(other); others && place_of(other) != place_of(step))
      if (others->st_rdev == facts->st_rdev && (others->st_mode & S_IFMT) == (facts->st_mode & S_IFMT)) return {};
  std::vector<DeviceRule> rules;
  for (const auto& before : plan_.before)
    if (const auto* group = std::get_if<CgroupStep>(&before); group && group->device_rules)
      for (const auto& rule : *group->device_rules)
        if (const auto& standard = standard_device_rules();
            is_of(rule, *facts) && std::find(standard.begin(), standard.end(), rule) == standard.end())
          rules.push_back(rule);
  return rules;
}

Result<Plugs::Kept> Plugs::attach(const ParentStep& step, const Inside& inside) {
  const Tree tree(plan_, host_, inside.user);
  const auto attach_mount = [&](const MountFd& mount) -> Result<Kept> {
    return Kept{TRY(attach_inside(host_, inside, mount, place_of(step), kind_of(step))), {}, {}};
  };
  return std::visit(
      [&](const auto& s) -> Result<Kept> {
        using Step = std::decay_t<decltype(s)>;
        if constexpr (std::is_same_v<Step, DeviceNodeStep>) {
          const auto dead = dead_nodes_.find(s.target);
          if (dead != dead_nodes_.end()) {
            if (TRY(tree.find_source(s.source_id))->facts.st_rdev == dead->second) return Kept{};  // it lives again
            return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                        "the node of another device lies there until the domain boots again");
          }
          const auto folder = TRY(NodeFolder::make());
          return attach_mount(TRY(tree.make(s, folder.dir())));
        } else if constexpr (requires { tree.make(s); })
          return attach_mount(TRY(tree.make(s)));
        else if constexpr (requires { make_live(host_, inside.net, s); }) {
          auto link = TRY(make_live(host_, inside.net, s));
          return Kept{{}, std::move(link), {}};
        } else
          return fail(VIR_ERR_INTERNAL_ERROR, "no device that can be plugged in");
      },
      step);
}

Result<void> Plugs::configure(const PlugAsk& ask, const Inside& inside, const LiveLink& link) const {
  if (ask.inside.empty()) return {};
  auto route = TRY(open_route_inside(host_, inside.net));
  for (const auto& step : ask.inside)
    TRY(std::visit(
        [&](const auto& s) -> Result<void> {
          if constexpr (requires { controller::configure(route, s, link.index); })
            return controller::configure(route, s, link.index);
          else
            return fail(VIR_ERR_INTERNAL_ERROR, "no step of a link");
        },
        step));
  return {};
}

// Of an attach that cannot be finished.
void Plugs::take_back(const ParentStep& step, const Kept& kept, const Inside& inside) {
  if (kept.mount) (void)detach_inside(host_, inside, {*kept.mount, place_of(step), kind_of(step)});
  if (kept.link && kept.link->end.index != 0) (void)remove_veth(kept.link->end);
  if (kept.link && kept.link->end.index == 0) (void)remove_macvlan(host_, inside.net, *kept.link);
}

Result<Plugged> Plugs::plug(const PlugAsk& ask, std::vector<Fd> sources, const PidFd& init, pid_t pid) {
  TRY(check(ask));
  ParentStep step = ask.from_parent.front();
  const std::string place = place_of(step);
  const Inside inside = TRY(enter(init, pid));
  Kept kept;
  Undo undo;
  if (auto* source = source_of(step)) {
    if (sources.size() != 1 || *source != 0) return fail(VIR_ERR_INTERNAL_ERROR, "a device without its source");
    *source = TRY(host_.add_source(MountFd(sources.front().release())));
    undo.add([this, id = *source] { host_.forget_source(id); });
  }
  TRY(change_rules({}, ask.rules));
  undo.add([this, &ask] { (void)change_rules(ask.rules, {}); });
  kept = TRY(attach(step, inside), quote(place));
  kept.rules = ask.rules;
  undo.add([&] { take_back(step, kept, inside); });
  if (kept.link) TRY(configure(ask, inside, *kept.link), quote(place));
  undo.commit();
  Plugged answer;
  if (kept.link && kept.link->end.index != 0) {
    answer.host_link = kept.link->end.name;
    host_ends_[place] = kept.link->end;
  } else if (kept.link) {
    macvlans_[place] = *kept.link;
  }
  if (kept.mount || kept.link) set_loose(step);
  dead_nodes_.erase(place);
  plugged_[place] = std::move(kept);
  plan_.from_parent.push_back(std::move(step));
  // Behind those of other links: the rest of the list makes init what it is.
  const auto last = std::find_if(plan_.inside.rbegin(), plan_.inside.rend(),
                                 [](const InsideStep& other) { return !link_of(other).empty(); });
  plan_.inside.insert(last.base(), ask.inside.begin(), ask.inside.end());
  return answer;
}

Result<void> Plugs::detach_mount(const ParentStep& step, const Inside& inside) {
  const std::string place = place_of(step);
  const auto kept = plugged_.find(place);
  if (kept == plugged_.end() || !kept->second.mount)
    return at_a_start_only(place, "it was there when the domain started, and the kernel keeps such mounts locked");
  PluggedMount mount{*kept->second.mount, place, kind_of(step)};
  // The host may have given the directory another name since.
  if (const auto* bind = std::get_if<BindStep>(&step))
    if (const auto source = host_.sources.find(bind->source_id); source != host_.sources.end())
      mount.identity.root = TRY(identity_at(host_.proc, source->second.place)).root;
  return detach_inside(host_, inside, mount);
}

Result<void> Plugs::detach(const ParentStep& step, const Inside& inside) {
  const std::string place = place_of(step);
  const auto kept = plugged_.find(place);
  if (std::holds_alternative<VethStep>(step)) {
    const auto end = host_ends_.find(place);
    if (end == host_ends_.end()) return fail(VIR_ERR_INTERNAL_ERROR, "its end on the host is not known");
    return remove_veth(end->second);
  }
  if (std::holds_alternative<MacvlanStep>(step)) {
    const auto made = macvlans_.find(place);
    if (made == macvlans_.end()) return fail(VIR_ERR_INTERNAL_ERROR, "its number is not known");
    return remove_macvlan(host_, inside.net, made->second);
  }
  if (const auto* node = std::get_if<DeviceNodeStep>(&step);
      node && (kept == plugged_.end() || !kept->second.mount)) {
    // It stays as long as this boot, and leads nowhere without its rule.
    if (const auto source = host_.sources.find(node->source_id); source != host_.sources.end())
      dead_nodes_[place] = source->second.facts.st_rdev;
    return {};
  }
  return detach_mount(step, inside);
}

Result<Unplugged> Plugs::unplug(const UnplugAsk& ask, const PidFd& init, pid_t pid) {
  const ParentStep* found = find(ask.place);
  if (!found) return fail(VIR_ERR_OPERATION_INVALID, "the container has nothing at " + quote(ask.place));
  if (!is_plug(*found))
    return at_a_start_only(ask.place, "devices of this kind come at a start and go with the domain");
  ParentStep step = *found;
  const Inside inside = TRY(enter(init, pid));
  const auto rules = rules_of(step);
  TRY(change_rules(rules, {}));
  Undo undo;
  undo.add([&] { (void)change_rules({}, rules); });
  TRY(detach(step, inside), quote(ask.place));
  undo.commit();
  std::erase_if(plan_.from_parent, [&](const ParentStep& other) { return place_of(other) == ask.place; });
  std::erase_if(plan_.inside, [&](const InsideStep& other) { return link_of(other) == ask.place; });
  if (const auto* source = source_of(step)) host_.forget_source(*source);
  plugged_.erase(ask.place);
  host_ends_.erase(ask.place);
  macvlans_.erase(ask.place);
  return Unplugged{};
}

}  // namespace virtuserns::controller
