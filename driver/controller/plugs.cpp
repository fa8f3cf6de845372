#include "driver/controller/plugs.h"

#include <algorithm>

#include "conf/base/text.h"
#include "driver/controller/node_folder.h"
#include "driver/controller/tree.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/device_filter.h"

namespace virtuserns::controller {

namespace {

bool is_plug(const ParentStep& step) {
  return std::holds_alternative<BindStep>(step) || std::holds_alternative<TmpfsStep>(step) ||
         std::holds_alternative<DeviceNodeStep>(step) || std::holds_alternative<VethStep>(step) ||
         std::holds_alternative<MacvlanStep>(step) || std::holds_alternative<MoveLinkStep>(step);
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

Result<void> configure(kernel::RouteSocket& route, const InsideStep& step) {
  return std::visit(
      [&](const auto& s) -> Result<void> {
        if constexpr (requires { controller::configure(route, s); })
          return controller::configure(route, s);
        else
          return fail(VIR_ERR_INTERNAL_ERROR, "no step of a link");
      },
      step);
}

}  // namespace

struct Plugs::Job {
  Inside inside;
  Links links;
  std::vector<std::string> names;
  Undo undo;
  std::optional<MountIdentity> mount;
  Job(const Host& host, pid_t init, Inside where) : inside(std::move(where)), links(host, init, names) {}
};

void Plugs::booted(const Boot& boot) {
  host_links_.clear();
  std::size_t next = 0;
  for (const auto& step : plan_.from_parent) {
    const bool has_name = std::holds_alternative<VethStep>(step) || std::holds_alternative<LentLinkStep>(step);
    const auto& names = boot.record.host_links;
    if (has_name && next < names.size()) host_links_[place_of(step)] = names[next++];
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

Result<void> Plugs::attach_mount(const MountFd& mount, const ParentStep& step, Job& job) {
  job.mount = TRY(attach_inside(host_, job.inside, mount, place_of(step), kind_of(step)));
  return {};
}

Result<void> Plugs::attach(const ParentStep& step, Job& job) {
  const Tree tree(plan_, host_, job.inside.user);
  return std::visit(
      [&](const auto& s) -> Result<void> {
        using Step = std::decay_t<decltype(s)>;
        if constexpr (std::is_same_v<Step, DeviceNodeStep>) {
          const auto folder = TRY(NodeFolder::make());
          return attach_mount(TRY(tree.make(s, folder.dir())), step, job);
        } else if constexpr (requires { tree.make(s); })
          return attach_mount(TRY(tree.make(s)), step, job);
        else if constexpr (requires { job.links.apply(s); })
          return job.links.apply(s);
        else
          return fail(VIR_ERR_INTERNAL_ERROR, "no device that can be plugged in");
      },
      step);
}

Result<Plugged> Plugs::plug(const PlugAsk& ask, std::vector<Fd> sources, pid_t init) {
  TRY(check(ask));
  ParentStep step = ask.from_parent.front();
  Job job(host_, init, TRY(Inside::open(plan_, host_, init)));
  if (auto* source = source_of(step)) {
    if (sources.size() != 1 || *source != 0) return fail(VIR_ERR_INTERNAL_ERROR, "a device without its source");
    *source = TRY(host_.add_source(MountFd(sources.front().release())));
    job.undo.add([this, id = *source] { host_.forget_source(id); });
  }
  TRY(change_rules({}, ask.rules));
  job.undo.add([this, &ask] { (void)change_rules(ask.rules, {}); });
  TRY(attach(step, job), quote(place_of(step)));
  if (!ask.inside.empty()) {
    auto route = TRY(open_route_inside(host_, job.inside.net));
    for (const auto& inside : ask.inside) TRY(configure(route, inside), quote(place_of(step)));
  }
  job.undo.commit();
  job.links.commit();
  const std::string place = place_of(step);
  set_loose(step);
  plugged_[place] = {job.mount, ask.rules};
  if (!job.names.empty()) host_links_[place] = job.names.front();
  plan_.from_parent.push_back(std::move(step));
  // Behind those of other links: the rest of the list makes init what it is.
  const auto last = std::find_if(plan_.inside.rbegin(), plan_.inside.rend(),
                                 [](const InsideStep& other) { return !link_of(other).empty(); });
  plan_.inside.insert(last.base(), ask.inside.begin(), ask.inside.end());
  return Plugged{job.names.empty() ? std::string() : job.names.front()};
}

Result<void> Plugs::detach_mount(const std::string& place, PlaceKind kind, const Inside& inside) {
  const auto kept = plugged_.find(place);
  if (kept != plugged_.end() && kept->second.mount) {
    PluggedMount mount{*kept->second.mount, place, kind, {}};
    for (const auto& step : plan_.from_parent)
      if (auto other = place_of(step); other != place) mount.others.push_back(std::move(other));
    return detach_inside(host_, inside, mount);
  }
  // Its node stays as long as this boot, and leads nowhere without the rule.
  if (kind == PlaceKind::kNode) return {};
  return fail(VIR_ERR_OPERATION_UNSUPPORTED,
              quote(place) +
                  " was there when the domain started, and the kernel keeps such mounts locked; use --config to "
                  "take it out of the next start");
}

Result<void> Plugs::detach(const ParentStep& step, Job& job) {
  const std::string place = place_of(step);
  return std::visit(
      [&](const auto& s) -> Result<void> {
        using Step = std::decay_t<decltype(s)>;
        if constexpr (std::is_same_v<Step, VethStep>) {
          const auto name = host_links_.find(place);
          if (name == host_links_.end()) return fail(VIR_ERR_INTERNAL_ERROR, "the name of the veth is not known");
          return remove(host_, job.inside.net, s, name->second);
        } else if constexpr (requires { remove(host_, job.inside.net, s); })
          return remove(host_, job.inside.net, s);
        else
          return detach_mount(place, kind_of(step), job.inside);
      },
      step);
}

Result<Unplugged> Plugs::unplug(const UnplugAsk& ask, pid_t init) {
  const ParentStep* found = find(ask.place);
  if (!found || !is_plug(*found))
    return fail(VIR_ERR_OPERATION_INVALID,
                quote(ask.place) + " of the container is no device that can be taken away");
  ParentStep step = *found;
  Job job(host_, init, TRY(Inside::open(plan_, host_, init)));
  TRY(detach(step, job), quote(ask.place));
  const auto kept = plugged_.find(ask.place);
  TRY(change_rules(kept == plugged_.end() ? ask.rules : kept->second.rules, {}));
  std::erase_if(plan_.from_parent, [&](const ParentStep& other) { return place_of(other) == ask.place; });
  std::erase_if(plan_.inside, [&](const InsideStep& other) { return link_of(other) == ask.place; });
  if (const auto* source = source_of(step)) host_.forget_source(*source);
  plugged_.erase(ask.place);
  host_links_.erase(ask.place);
  return Unplugged{};
}

}  // namespace virtuserns::controller
