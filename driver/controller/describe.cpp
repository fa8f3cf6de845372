// describe(): the plan as text, one line per step. Golden tests compare it, so a line says everything a step holds.
#include <arpa/inet.h>

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "driver/controller/plan.h"

namespace virtuserns {

namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

std::string number(std::uint64_t value) { return std::to_string(value); }
std::string octal(std::uint32_t mode) {
  std::string text;
  for (auto rest = mode; rest != 0; rest >>= 3) text.insert(text.begin(), static_cast<char>('0' + (rest & 7)));
  return "0" + text;
}
std::string address(const std::vector<std::uint8_t>& bytes) {
  char text[INET6_ADDRSTRLEN];
  if (bytes.size() == 4 && ::inet_ntop(AF_INET, bytes.data(), text, sizeof text)) return text;
  if (bytes.size() == 16 && ::inet_ntop(AF_INET6, bytes.data(), text, sizeof text)) return text;
  return "(" + number(bytes.size()) + " bytes)";
}
std::string words(const std::vector<std::string>& parts) {
  std::string text;
  for (const auto& part : parts) text += " " + quote(part);
  return text;
}
std::string when(bool condition, const char* text) { return condition ? text : ""; }
std::string lines(const IdMapLines& map) {
  std::string text;
  for (const auto& line : map)
    text += " " + number(line.inside) + ":" + number(line.outside) + ":" + number(line.count);
  return text;
}
std::string shift(OwnerShift shift) { return shift == OwnerShift::kIdmappedMount ? " idmapped" : " already-shifted"; }
std::string after(AfterExit action) { return action == AfterExit::kDestroy ? "destroy" : "restart"; }

std::string overlay(const OverlaySourceStep& s) {
  std::string text = "overlay " + number(s.id) + " " + quote(s.own.host_source) + shift(s.own.shift);
  for (const auto& lower : s.lowers) text += " over " + quote(lower.host_source) + shift(lower.shift);
  return text + when(s.has_user_xattrs, " user-xattrs");
}

std::string line(const BeforeStep& step) {
  return std::visit(Overloaded{[](const CgroupStep& s) {
                                 std::string text = "cgroup " + quote(s.mount) + " " + quote(s.path) +
                                                    when(s.is_v2, " v2") + " controllers";
                                 for (const auto& controller : s.controllers) text += " " + printable(controller);
                                 text += when(s.is_optional, " optional") + when(s.delegate, " delegate");
                                 if (!s.scope.empty()) text += " scope " + quote(s.scope);
                                 for (const auto& write : s.writes)
                                   text += " " + printable(write.file) + "=" + quote(write.value);
                                 if (s.device_rules) text += " devices";
                                 for (const auto& rule : s.device_rules.value_or(std::vector<DeviceRule>()))
                                   text += " [" + format_device_rule(rule) + "]";
                                 return text;
                               },
                               [](const SourceStep& s) {
                                 return "source " + number(s.id) + " directory " + quote(s.host_source) +
                                        when(s.is_recursive, " recursive") + when(s.is_readonly, " readonly") +
                                        (s.user ? " as " + number(s.user->uid) + ":" + number(s.user->gid) : "");
                               },
                               [](const DeviceSourceStep& s) {
                                 return "device-source " + number(s.id) + " " + quote(s.host_source) +
                                        when(s.is_optional, " optional");
                               },
                               [](const ImageHelpersStep& s) {
                                 return "image-helpers " + quote(s.prober) + " " + quote(s.storage_daemon) +
                                        " filter " + number(s.filter.size() / 8) + " instructions";
                               },
                               [](const ImageSourceStep& s) {
                                 std::string text =
                                     "image " + number(s.id) + (s.is_block ? " block-device" : " file");
                                 for (const auto& file : s.chain)
                                   text += " " + quote(file.path) + " " + quote(file.format);
                                 if (s.partition) text += " partition " + number(s.partition);
                                 text += " from " + number(s.offset_bytes);
                                 if (s.size_bytes) text += " size " + number(s.size_bytes);
                                 if (!s.subvolume.empty()) text += " subvolume " + quote(s.subvolume);
                                 return text + when(s.is_readonly, " readonly");
                               },
                               [](const OverlaySourceStep& s) { return overlay(s); }},
                    step);
}

std::string network_of(const UserLinkStep& s) {
  std::string text;
  if (!s.host_device.empty()) text += " from " + quote(s.host_device);
  if (s.mtu) text += " mtu " + number(*s.mtu);
  if (!s.address.empty()) text += " address " + s.address + "/" + number(s.prefix) + " gateway " + s.gateway;
  if (!s.address6.empty()) text += " address " + s.address6 + " gateway " + s.gateway6;
  for (const auto& port : s.ports)
    text += std::string(port.is_udp ? " udp " : " tcp ") + (port.host.empty() ? "" : port.host + "/") +
            number(port.host_port) + "->" + number(port.guest_port);
  if (!s.log_file.empty()) text += " log " + quote(s.log_file);
  return text;
}

std::string line(const ParentStep& step) {
  return std::visit(
      Overloaded{
          [](const IdMapStep& s) { return "idmap uid" + lines(s.maps.uid) + " gid" + lines(s.maps.gid); },
          [](const RootStep& s) {
            return "root source " + number(s.source_id) + shift(s.shift) + when(s.is_readonly, " readonly");
          },
          [](const BindStep& s) {
            return "bind source " + number(s.source_id) + " to " + quote(s.target) + shift(s.shift) +
                   when(s.is_readonly, " readonly");
          },
          [](const InnerBindStep& s) {
            return "inner-bind " + quote(s.source) + " to " + quote(s.target) + when(s.is_readonly, " readonly");
          },
          [](const TmpfsStep& s) {
            return "tmpfs " + quote(s.target) + " size " + number(s.size_bytes) + " mode " + octal(s.mode) +
                   when(s.is_readonly, " readonly");
          },
          [](const DevStep& s) {
            return "dev size " + number(s.size_bytes) + " consoles " + number(s.console_count) +
                   (s.pts_gid ? " pts-gid " + number(*s.pts_gid) : "");
          },
          [](const DeviceNodeStep& s) {
            return "device-node source " + number(s.source_id) + " at " + quote(s.target);
          },
          [](const ProcStep& s) {
            return "proc masked" + words(s.masked) + " readonly" + words(s.readonly) + " writable" +
                   words(s.writable) + when(s.is_also_bare, " also-bare");
          },
          [](const SysStep& s) { return "sys masked" + words(s.masked) + when(s.is_also_bare, " also-bare"); },
          [](const CgroupMountStep& s) {
            return "cgroup-mount " + quote(s.target) + when(s.is_readonly, " readonly");
          },
          [](const MqueueStep& s) { return "mqueue " + quote(s.target); },
          [](const VethStep& s) {
            return "veth " + quote(s.host_name) + " guest " + quote(s.guest_name) + " mac " +
                   format_mac_bytes(s.guest_mac) + (s.bridge.empty() ? "" : " bridge " + quote(s.bridge)) +
                   (s.mtu ? " mtu " + number(*s.mtu) : "") + when(!s.is_up, " down");
          },
          [](const MacvlanStep& s) {
            return "macvlan on " + quote(s.host_device) + " guest " + quote(s.guest_name) + " mode " + quote(s.mode) +
                   " mac " + format_mac_bytes(s.mac);
          },
          [](const MoveLinkStep& s) { return "move-link " + quote(s.host_device) + " guest " + quote(s.guest_name); },
          [](const UserLinkStep& s) {
            return "user-link guest " + quote(s.guest_name) + " mac " + format_mac_bytes(s.guest_mac) +
                   network_of(s) + when(!s.is_up, " down");
          },
          [](const LentLinkStep& s) {
            return "lent-link guest " + quote(s.guest_name) + " mac " + format_mac_bytes(s.guest_mac) + " bridge " +
                   quote(s.bridge) + (s.mtu ? " mtu " + number(*s.mtu) : "") + when(!s.is_up, " down") + " by " +
                   quote(s.broker);
          }},
      step);
}

std::string line(const InsideStep& step) {
  return std::visit(
      Overloaded{[](const LinkUpStep& s) { return "link-up " + quote(s.device); },
                 [](const AddressStep& s) {
                   return "address " + address(s.address) + "/" + number(s.prefix) + " on " + quote(s.device) +
                          (s.peer.empty() ? "" : " peer " + address(s.peer));
                 },
                 [](const RouteStep& s) {
                   return "route " + (s.network.empty() ? std::string("default") : address(s.network)) + "/" +
                          number(s.prefix) + (s.gateway.empty() ? "" : " via " + address(s.gateway)) +
                          (s.device.empty() ? "" : " on " + quote(s.device)) +
                          (s.metric ? " metric " + number(*s.metric) : "");
                 },
                 [](const HostnameStep& s) { return "hostname " + quote(s.name); },
                 [](const PivotStep&) { return std::string("pivot"); },
                 [](const ConsoleStep&) { return std::string("console"); },
                 [](const RlimitStep& s) {
                   return "rlimit " + std::to_string(s.resource) + " " + number(s.soft) + " " + number(s.hard);
                 },
                 [](const PersonalityStep& s) { return "personality " + format_hex(s.persona); },
                 [](const CapabilitiesStep& s) {
                   return "capabilities " + format_hex(s.bounding) + when(s.no_new_privs, " no-new-privs");
                 },
                 [](const SeccompStep& s) {
                   std::string text =
                       "seccomp " + number(s.program.size() / 8) + " instructions" + when(s.is_logged, " logged");
                   for (const auto& call : s.refusable)
                     text += " " + format_hex(call.arch) + ":" + number(call.number) + "=" + printable(call.name);
                   return text;
                 },
                 [](const ApparmorStep& s) { return "apparmor " + quote(s.profile); },
                 [](const UserStep& s) { return "user " + quote(s.user) + " group " + quote(s.group); },
                 [](const ExecStep& s) {
                   return "exec " + quote(s.path) + " argv" + words(s.argv) + " env" + words(s.env) +
                          (s.directory.empty() ? "" : " in " + quote(s.directory)) +
                          (s.passed_files ? " files " + number(s.passed_files) : "");
                 }},
      step);
}

template <class Steps>
void append(std::string& text, const char* title, const Steps& steps) {
  for (const auto& step : steps) text += std::string(title) + " " + line(step) + "\n";
}

}  // namespace

std::string describe(const LaunchPlan& plan) {
  std::string text = "plan " + number(plan.version) + " " + quote(plan.name) + " " + format_uuid(Uuid{plan.uuid}) +
                     " as " + number(plan.host_uid) + ":" + number(plan.host_gid) + "\n";
  text += "paths socket " + quote(plan.socket_path) + " plug " + quote(plan.plug_path) + " exit-record " +
          quote(plan.exit_record_path) + " stage " + quote(plan.stage_path) + "\n";
  text += "after poweroff " + after(plan.after_poweroff) + ", reboot " + after(plan.after_reboot) + ", crash " +
          after(plan.after_crash) + "\n";
  for (const auto& console : plan.consoles)
    text += "console " + number(console.port) +
            (console.log_file.empty() ? ""
                                      : " log " + quote(console.log_file) + (console.log_append ? "" : " truncate")) +
            (console.terminal_path.empty() ? "" : " terminal " + quote(console.terminal_path)) + "\n";
  append(text, "before:", plan.before);
  append(text, "from_parent:", plan.from_parent);
  append(text, "inside:", plan.inside);
  return text;
}

}  // namespace virtuserns
