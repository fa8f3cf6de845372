// What happens inside before init: hostname, pivot, console, personality, seccomp, capabilities, user, exec.
#include <linux/capability.h>
#include <sys/personality.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "conf/base/text.h"
#include "conf/capability_names.h"
#include "driver/userns/plan_parts.h"

namespace virtuserns::userns {

namespace {

constexpr std::string_view kDroppedByDefault[] = {
    // libvirt's
    "sys_module", "sys_time", "mknod", "audit_control", "mac_admin",
    // ours
    "sys_rawio", "syslog", "wake_alarm", "block_suspend", "audit_read", "mac_override", "perfmon", "bpf"};

bool is_32bit_on_64bit(const std::string& guest, const std::string& host) {
  return (host == "x86_64" && (guest == "i686" || guest == "i586" || guest == "i386")) ||
         (host == "aarch64" && guest == "armv7l");
}

std::vector<std::string> environment(const DomainDef& def) {
  const std::string uuid = format_uuid(def.uuid);
  // libvirt's list in libvirt's order: init sees the same bytes.
  std::vector<std::string> env = {"PATH=/bin:/sbin", "TERM=linux", "container=lxc-libvirt", "HOME=/",
                                  "container_uuid=" + uuid};
  if (def.consoles.size() > 1) {
    std::vector<std::string> ttys;  // the first is /dev/console
    for (std::size_t i = 1; i < def.consoles.size(); ++i) ttys.push_back("pts/" + std::to_string(i));
    env.push_back("container_ttys=" + join(ttys, " "));
  }
  env.push_back("LIBVIRT_LXC_UUID=" + uuid);
  env.push_back("LIBVIRT_LXC_NAME=" + def.name);
  if (!def.os.cmdline.empty()) env.push_back("LIBVIRT_LXC_CMDLINE=" + def.os.cmdline);
  const auto set = [&](const InitEnv& variable) {
    const std::string prefix = variable.name + "=";
    const auto same =
        std::find_if(env.begin(), env.end(), [&](const std::string& other) { return other.starts_with(prefix); });
    if (same != env.end())
      *same = prefix + variable.value;
    else
      env.push_back(prefix + variable.value);
  };
  for (const auto& variable : def.os.init_env) set(variable);
  return env;
}

constexpr const char* kControllerProfile = "virtuserns-controller";

Result<void> plan_apparmor(Draft& draft) {
  std::string profile = kApparmorProfile;
  bool is_wanted = false;  // by name
  for (const auto& label : draft.def.seclabels) {
    const bool is_ours = label.model.empty() || label.model == "apparmor";
    if (label.type == "none" && (is_ours || label.model == "none")) {
      if (draft.context.apparmor_profiles.count(kControllerProfile) == 0) return {};
      return unsupported("<seclabel type='none'>: AppArmor's profile " + quote(kControllerProfile) +
                         ", which is loaded, starts nothing unconfined: remove the element, or unload the profile");
    }
    if (is_ours && label.type == "static") profile = label.label, is_wanted = true;
    if (!is_ours && label.type != "none") draft.message("<seclabel model='" + label.model + "'> has no effect");
  }
  const bool is_there = draft.context.apparmor_profiles.count(profile) != 0;
  if (is_wanted && !is_there)
    return unsupported("<seclabel>: AppArmor's profile " + quote(profile) +
                       " is not loaded on this host: load it with apparmor_parser(8), or remove the element");
  if (is_there) draft.plan().inside.push_back(ApparmorStep{profile});
  return {};
}

}  // namespace

std::uint64_t capability_bounds(const FeaturesDef& features, std::uint64_t last_capability) {
  const auto policy = features.capabilities_policy;
  std::uint64_t bounds = 0;
  for (std::size_t i = 0; i < 64 && i <= last_capability; ++i) {
    // A capability newer than this table: nobody can name it, so only policy='allow' gives it.
    const std::string_view name = i < kCapabilitiesByNumber.size() ? kCapabilitiesByNumber[i] : std::string_view();
    const auto named = features.capabilities.find(std::string(name));
    const bool is_dropped_by_default =
        name.empty() ||
        std::find(std::begin(kDroppedByDefault), std::end(kDroppedByDefault), name) != std::end(kDroppedByDefault);
    bool is_on =
        policy == CapabilitiesPolicy::kAllow || (policy == CapabilitiesPolicy::kDefault && !is_dropped_by_default);
    if (named != features.capabilities.end()) {
      // As libvirt has it: 'on' is what 'deny' and 'default' listen to, 'off' what 'allow' and 'default' do.
      if (named->second && policy != CapabilitiesPolicy::kAllow) is_on = true;
      if (!named->second && policy != CapabilitiesPolicy::kDeny) is_on = false;
    }
    if (is_on) bounds |= std::uint64_t{1} << i;
  }
  return bounds;
}

Result<void> plan_init(Draft& draft) {
  const auto& def = draft.def;
  auto& inside = draft.plan().inside;
  if (def.os.init.empty()) return unsupported("<os> has no <init>");
  if (const auto name = guest_hostname(def.name); !name.empty()) inside.push_back(HostnameStep{name});
  inside.push_back(PivotStep{});
  inside.push_back(ConsoleStep{});
  const std::string& host_arch = draft.context.host.node.arch;
  if (is_32bit_on_64bit(def.os.arch, host_arch))
    inside.push_back(PersonalityStep{PER_LINUX32});
  else if (!def.os.arch.empty() && !host_arch.empty() && def.os.arch != host_arch)
    return unsupported("architecture " + quote(def.os.arch) + " does not run on this host (" + host_arch + ")");
  TRY(plan_apparmor(draft));
  // The filter before the capabilities: installing it needs CAP_SYS_ADMIN, which <capabilities> may take away. It
  // allows every call that the remaining steps make.
  inside.push_back(draft.context.seccomp);
  const auto bounds = capability_bounds(def.features, draft.context.host.last_capability);
  inside.push_back(CapabilitiesStep{bounds, false});
  if (!def.os.init_user.empty() || !def.os.init_group.empty())
    inside.push_back(UserStep{def.os.init_user, def.os.init_group});

  ExecStep exec;
  exec.path = def.os.init;
  exec.argv.push_back(def.os.init);
  exec.argv.insert(exec.argv.end(), def.os.init_args.begin(), def.os.init_args.end());
  exec.env = environment(def);
  exec.directory = def.os.init_dir;
  exec.passed_files = draft.context.passed_files;
  inside.push_back(std::move(exec));
  return {};
}

}  // namespace virtuserns::userns
