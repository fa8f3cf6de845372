// <os>, <features>, <clock>.
#include <algorithm>

#include "conf/capability_names.h"
#include "xml/kept.h"
#include "xml/order.h"
#include "xml/parts.h"

namespace virtuserns::xml {

Result<void> parse_os(const Node& node, OsDef& os) {
  if (const auto type = TRY(node.only_child("type"))) {
    os.type = trim(type.text());
    os.arch = type.attribute_or("arch");
    os.machine = type.attribute_or("machine");
    keep_rest(type, {"arch", "machine"}, {}, os.kept, "type/");
  }
  os.init = TRY(node.only_child("init")).text();
  os.init_dir = TRY(node.only_child("initdir")).text();
  os.init_user = TRY(node.only_child("inituser")).text();
  os.init_group = TRY(node.only_child("initgroup")).text();
  os.cmdline = TRY(node.only_child("cmdline")).text();
  for (const Node arg : node.children("initarg")) {
    os.init_args.push_back(arg.text());
    if (os.init_args.back().empty()) return arg.error("<initarg> is empty: give it a text or remove it");
  }
  for (const Node env : node.children("initenv")) {
    InitEnv entry{env.attribute_or("name"), env.text()};
    if (entry.name.empty()) return env.error("<initenv> has no name: write <initenv name='NAME'>value</initenv>");
    if (entry.value.empty()) return env.error("<initenv name=" + quote(entry.name) + "> has no value");
    os.init_env.push_back(std::move(entry));
  }
  keep_rest(node, {}, {"type", "init", "initdir", "inituser", "initgroup", "cmdline", "initarg", "initenv"}, os.kept);
  return {};
}

Element make_os(const OsDef& os) {
  Element element("os");
  Element type("type");
  type.attribute_if("arch", os.arch).attribute_if("machine", os.machine).kept(os.kept, "type/").text(os.type);
  element.child(std::move(type)).child_if("init", os.init);
  for (const auto& arg : os.init_args) element.child("initarg", arg);
  for (const auto& env : os.init_env)
    element.child(std::move(Element("initenv").attribute("name", env.name).text(env.value)));
  element.child_if("initdir", os.init_dir).child_if("inituser", os.init_user).child_if("initgroup", os.init_group);
  element.child_if("cmdline", os.cmdline);
  return element.kept(os.kept).sort({}, order::kOs);
}

namespace {

constexpr Word<CapabilitiesPolicy> kPolicies[] = {{"default", CapabilitiesPolicy::kDefault},
                                                  {"allow", CapabilitiesPolicy::kAllow},
                                                  {"deny", CapabilitiesPolicy::kDeny}};

Result<void> parse_capability_list(const Node& node, FeaturesDef& features) {
  features.capabilities_policy = TRY(parse_word(node, "capabilities policy", node.attribute_or("policy", "default"),
                                                kPolicies, VIR_ERR_CONFIG_UNSUPPORTED));
  for (const Node child : node.children()) {
    const std::string name(child.name());
    const auto state = TRY(child.on_off("state"));
    if (!state) return child.error("capability " + quote(name) + " has no state: write state='on' or state='off'");
    if (!features.capabilities.emplace(name, *state).second)
      return child.error("capability " + quote(name) + " appears twice");
  }
  // <capabilities policy='default'/> says nothing, and libvirt does not print it either.
  features.capabilities_present =
      features.capabilities_policy != CapabilitiesPolicy::kDefault || !features.capabilities.empty();
  return {};
}

}  // namespace

Result<void> parse_features(const Node& node, FeaturesDef& features) {
  features.privnet = static_cast<bool>(TRY(node.only_child("privnet")));
  if (const auto list = TRY(node.only_child("capabilities"))) TRY(parse_capability_list(list, features));
  keep_rest(node, {}, {"privnet", "capabilities"}, features.kept);
  features.present = features.privnet || features.capabilities_present || !features.kept.empty();
  return {};
}

Element make_features(const FeaturesDef& features) {
  Element element("features");
  if (features.privnet) element.child(Element("privnet"));
  if (features.capabilities_present || !features.capabilities.empty()) {
    Element list("capabilities");
    list.attribute("policy", word_of(features.capabilities_policy, kPolicies));
    for (const auto& [name, is_on] : features.capabilities)
      list.child(std::move(Element(name).attribute("state", is_on ? "on" : "off")));
    element.child(std::move(list.sort({}, kCapabilityNames)));
  }
  return element.kept(features.kept).sort({}, order::kFeatures);
}

namespace {

Result<TimerDef> parse_timer(const Node& node) {
  TimerDef timer;
  const auto name = node.attribute("name");
  if (!name) return node.error("<timer> has no name");
  timer.name = TRY(parse_choice(node, "timer name", *name,
                                {"platform", "pit", "rtc", "hpet", "tsc", "kvmclock", "hypervclock", "armvtimer"},
                                VIR_ERR_CONFIG_UNSUPPORTED));
  timer.present = TRY(node.yes_no("present"));
  keep_rest(node, {"name", "present"}, {}, timer.kept);
  return timer;
}

}  // namespace

Result<void> parse_clock(const Node& node, ClockDef& clock) {
  clock.offset =
      TRY(parse_choice(node, "clock offset", node.attribute_or("offset", "utc"),
                       {"utc", "localtime", "variable", "timezone", "absolute"}, VIR_ERR_CONFIG_UNSUPPORTED));
  for (const Node child : node.children("timer")) clock.timers.push_back(TRY(parse_timer(child)));
  keep_rest(node, {"offset"}, {"timer"}, clock.kept);
  if (clock.offset == "variable")
    for (const auto& [name, value] : {std::pair{"@adjustment", "0"}, std::pair{"@basis", "utc"}})
      if (std::none_of(clock.kept.begin(), clock.kept.end(), [n = name](const KeptXml& k) { return k.name == n; }))
        clock.kept.push_back({name, value});
  return {};
}

Element make_clock(const ClockDef& clock) {
  Element element("clock");
  element.attribute("offset", clock.offset);
  for (const auto& timer : clock.timers) {
    Element child("timer");
    child.attribute("name", timer.name);
    if (timer.present) child.attribute("present", *timer.present ? "yes" : "no");
    element.child(std::move(child.kept(timer.kept).sort(order::kTimerAttributes, {})));
  }
  return element.kept(clock.kept).sort(order::kClockAttributes, {});
}

}  // namespace virtuserns::xml
