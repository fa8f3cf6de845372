#include "driver/controller/plan.h"

#include <algorithm>

#include "conf/base/text.h"
#include "conf/image_formats.h"
#include "conf/validate.h"

namespace virtuserns {

namespace {

constexpr std::size_t kMaxPlanBytes = 4 * 1024 * 1024;
constexpr std::size_t kMaxPlanMemory = 32 * 1024 * 1024;
constexpr std::size_t kMaxSteps = 2048;
constexpr std::size_t kMaxFilterBytes = 4096 * 8;  // BPF_MAXINSNS, linux/bpf_common.h
constexpr std::size_t kMaxCallNames = 4096;
constexpr std::size_t kMaxConsoles = 64;

Error refuse(const std::string& why) { return fail(VIR_ERR_INTERNAL_ERROR, "launch plan: " + why); }

bool is_absolute(const std::string& path) { return !path.empty() && path.front() == '/'; }

// A group's path joins a mount point by text, so it must not lead out of it.
bool is_plain_relative(const std::string& path) {
  for (const auto part : split(path, '/'))
    if (part.empty() || part == "." || part == "..") return false;
  return true;
}

Result<void> check(const CgroupStep& step) {
  const bool is_mounted_nowhere = step.is_v2 && step.mount.empty();
  if ((!is_absolute(step.mount) && !is_mounted_nowhere) || !is_plain_relative(step.path))
    return refuse("cgroup " + quote(step.mount) + " " + quote(step.path) + " is no path below a mount");
  if (!step.scope.empty() && (!is_plain_relative(step.scope) || !step.path.starts_with(step.scope + "/")))
    return refuse("cgroup " + quote(step.path) + " is not in scope " + quote(step.scope));
  for (const auto& write : step.writes)
    if (!is_plain_relative(write.file) || write.file.find('/') != std::string::npos)
      return refuse("cgroup file " + quote(write.file) + " is no file name");
  return {};
}

Result<void> check_source(const std::string& path) {
  if (!is_absolute(path)) return refuse("source " + quote(path) + " is no absolute path");
  return {};
}

Result<void> check(const SourceStep& step) {
  if (step.user && step.user->uid == 0) return refuse("source " + quote(step.host_source) + " is opened as root");
  return check_source(step.host_source);
}
Result<void> check(const DeviceSourceStep& step) { return check_source(step.host_source); }

Result<void> check_filter(const std::vector<std::uint8_t>& program) {
  if (program.size() % 8 != 0 || program.size() > kMaxFilterBytes) return refuse("malformed seccomp filter");
  return {};
}

Result<void> check(const ImageHelpersStep& step) {
  const bool has_daemon = !step.storage_daemon.empty();
  if (!is_absolute(step.prober) || (has_daemon && !is_absolute(step.storage_daemon)) || step.filter.empty())
    return refuse("images without what reads them");
  return check_filter(step.filter);
}

Result<void> check(const ImageSourceStep& step) {
  if (step.chain.empty() || step.chain.size() > kMaxImageChain)
    return refuse("an image of " + std::to_string(step.chain.size()) + " files");
  for (const auto& file : step.chain) {
    TRY(check_source(file.path));
    if (!is_image_format(file.format)) return refuse(quote(file.format) + " is no format of images");
  }
  return {};
}

Result<void> check(const OverlaySourceStep& step) {
  if (step.lowers.empty() || step.lowers.size() > kMaxOverlayLowers)
    return refuse("an overlay over " + std::to_string(step.lowers.size()) + " directories");
  for (const auto& lower : step.lowers) TRY(check_source(lower.host_source));
  return check_source(step.own.host_source);
}

Result<void> check_before(const BeforeStep& step) {
  return std::visit([](const auto& any) { return check(any); }, step);
}

// A domain without a user namespace does not exist: whoever made the plan, this program does not start one.
Result<void> check(const IdMapStep& step, const LaunchPlan& plan) {
  for (const auto* lines : {&step.maps.uid, &step.maps.gid}) {
    if (lines->empty() || lines->size() > kMaxIdMapLines)
      return refuse("id map with " + std::to_string(lines->size()) + " lines");
    for (const auto& line : *lines)
      if (line.outside == 0 || line.count == 0) return refuse("id map with target 0 or count 0");
  }
  const auto maps = [](const IdMapLines& lines, std::uint32_t host) {
    return std::any_of(lines.begin(), lines.end(),
                       [&](const IdMapLine& line) { return line.inside == 0 && line.outside == host; });
  };
  if (!maps(step.maps.uid, plan.host_uid) || !maps(step.maps.gid, plan.host_gid))
    return refuse("id map does not map container root to the domain's own ids");
  return {};
}

constexpr std::size_t kMaxPorts = 1024;
constexpr std::size_t kMaxWord = 64;  // of what becomes a word of another program's command line

Result<void> check(const UserLinkStep& step) {
  for (const auto* word :
       {&step.guest_name, &step.host_device, &step.address, &step.gateway, &step.address6, &step.gateway6})
    if (word->size() > kMaxWord) return refuse("user link with a word that is too long");
  if (step.guest_name.empty()) return refuse("user link without a name");
  if (step.prefix > 32) return refuse("user link with prefix " + std::to_string(step.prefix));
  if (!step.log_file.empty() && !is_absolute(step.log_file)) return refuse("log of a user link is no absolute path");
  if (step.ports.size() > kMaxPorts) return refuse("too many forwarded ports");
  for (const auto& port : step.ports)
    if (port.host.size() > kMaxWord || port.host_port == 0 || port.host_port > 65535 || port.guest_port == 0 ||
        port.guest_port > 65535)
      return refuse("forwarded port that is none");
  return {};
}

Result<void> check_lists(const LaunchPlan& plan) {
  if (std::max({plan.before.size(), plan.from_parent.size(), plan.inside.size()}) > kMaxSteps)
    return refuse("too many steps");
  for (const auto& step : plan.before) TRY(check_before(step));
  std::size_t maps = 0;
  for (const auto& step : plan.from_parent) {
    if (const auto* map = std::get_if<IdMapStep>(&step)) {
      TRY(check(*map, plan));
      ++maps;
    }
    if (const auto* dev = std::get_if<DevStep>(&step); dev && dev->console_count > kMaxConsoles)
      return refuse("too many consoles");
    if (const auto* link = std::get_if<UserLinkStep>(&step)) TRY(check(*link));
    if (const auto* link = std::get_if<LentLinkStep>(&step); link && !is_absolute(link->broker))
      return refuse("broker of a link " + quote(link->broker) + " is no absolute path");
  }
  if (maps != 1) return refuse("needs exactly one id map");
  for (const auto& step : plan.inside) {
    const auto* apparmor = std::get_if<ApparmorStep>(&step);
    if (apparmor && (apparmor->profile.empty() || apparmor->profile.find_first_of(" \n\t") != std::string::npos))
      return refuse("profile " + quote(apparmor->profile) + " is no name");
    const auto* filter = std::get_if<SeccompStep>(&step);
    if (filter) TRY(check_filter(filter->program));
    if (filter && filter->refusable.size() > kMaxCallNames) return refuse("too many names of system calls");
    if (std::holds_alternative<ExecStep>(step) && &step != &plan.inside.back())
      return refuse("exec is not the last step");
  }
  if (plan.inside.empty() || !std::holds_alternative<ExecStep>(plan.inside.back()))
    return refuse("does not end in exec");
  return {};
}

Result<void> check(const LaunchPlan& plan) {
  if (plan.version != kPlanVersion) return refuse("version " + std::to_string(plan.version) + " is not known");
  if (plan.host_uid == 0 || plan.host_gid == 0) return refuse("host id 0 is never a container's");
  if (!is_absolute(plan.stage_path)) return refuse("stage " + quote(plan.stage_path) + " is no absolute path");
  for (const auto* path : {&plan.socket_path, &plan.plug_path, &plan.exit_record_path})
    if (!path->empty() && !is_absolute(*path)) return refuse(quote(*path) + " is no absolute path");
  if (plan.consoles.size() > kMaxConsoles) return refuse("too many consoles");
  for (const auto& console : plan.consoles)
    if (!console.log_file.empty() && !is_absolute(console.log_file)) return refuse("console log is no absolute path");
  for (const auto& console : plan.consoles)
    if (!console.terminal_path.empty() && !is_absolute(console.terminal_path))
      return refuse("terminal of a console is no absolute path");
  return check_lists(plan);
}

}  // namespace

std::vector<std::uint8_t> encode_plan(const LaunchPlan& plan) { return xdr::encode(plan); }

Result<LaunchPlan> decode_plan(std::span<const std::uint8_t> bytes) {
  if (bytes.size() > kMaxPlanBytes) return refuse("larger than 4 MiB");
  // The version is looked at first: the fields of another version cannot be told apart from damage.
  if (bytes.size() >= 4)
    if (const auto version = xdr::Reader(bytes).u32(); version != kPlanVersion)
      return refuse("version " + std::to_string(version) + " is not known");
  LaunchPlan plan = TRY(xdr::decode_exact<LaunchPlan>(bytes, kMaxPlanMemory), "launch plan");
  TRY(check(plan));
  return plan;
}

}  // namespace virtuserns
