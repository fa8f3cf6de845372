// Sizes and limits of a running domain: writes to its groups (through its controller, which owns them), and reads.
#include "conf/tuning.h"

#include <libvirt/libvirt.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/userns/backend.h"
#include "driver/userns/observe.h"

namespace virtuserns::userns {

namespace {

// The files of the limits that were given and no others, as libvirt does: where <memtune> says nothing, what holds is the
// size of the memory, or what was set since. "Unlimited" takes the element out of the definition, so that the next start
// has the size as its limit again; a domain that runs really loses its limit.
std::vector<FileWrite> memory_changes(DomainDef def, const TypedParams& params, const LimitContext& context) {
  const auto is_given = [&](const char* field, std::optional<std::uint64_t>& limit) {
    const auto found =
        std::find_if(params.begin(), params.end(), [&](const TypedParam& param) { return param.field == field; });
    if (found != params.end() && !limit) limit = kMemoryUnlimitedKib;
    return found != params.end();
  };
  const bool hard = is_given(VIR_DOMAIN_MEMORY_HARD_LIMIT, def.memtune.hard_limit_kib);
  const bool soft = is_given(VIR_DOMAIN_MEMORY_SOFT_LIMIT, def.memtune.soft_limit_kib);
  const bool swap = is_given(VIR_DOMAIN_MEMORY_SWAP_HARD_LIMIT, def.memtune.swap_hard_limit_kib);
  auto writes = memory_writes(def, context);
  std::erase_if(writes, [&](const FileWrite& write) {
    if (write.file == "memory.max" || write.file == "memory.limit_in_bytes") return !hard;
    if (write.file == "memory.high" || write.file == "memory.soft_limit_in_bytes") return !soft;
    return !swap && !hard;  // v2's limit of swap follows from both
  });
  return writes;
}

}  // namespace

std::size_t Backend::host_cpus() const {
  return host_.node.present_cpus.empty() ? host_.node.cpus : host_.node.present_cpus.size();
}

bool Backend::uses_v2(const char* controller) const {
  for (const auto& hierarchy : host_.hierarchies)
    if (std::find(hierarchy.controllers.begin(), hierarchy.controllers.end(), controller) !=
        hierarchy.controllers.end())
      return hierarchy.is_v2;
  return false;
}

LimitContext Backend::limit_context(const char* controller) const {
  LimitContext context{uses_v2(controller) ? LimitFiles::kV2 : LimitFiles::kV1, true, "blkio.bfq.weight"};
  return context;
}

Result<void> Backend::write_limits(const RunPtr& run, const char* controller, std::vector<FileWrite> writes) const {
  if (writes.empty()) return {};
  controller::CgroupWriteRequest request;
  for (auto& write : writes) request.writes.push_back({controller, std::move(write.file), std::move(write.value)});
  (void)TRY(run->channel->request(std::move(request), kRequestTimeoutMs));
  return {};
}

// v1 refuses a memory limit above that of memory and swap, whichever is written first: one of the two orders works. It
// also refuses, as "busy", one that is below what is used when nothing more can be freed.
Result<void> Backend::write_memory(const RunPtr& run, const DomainDef& def, std::vector<FileWrite> writes) const {
  auto done = write_limits(run, "memory", writes);
  std::reverse(writes.begin(), writes.end());
  if (!done && writes.size() > 1) done = write_limits(run, "memory", writes);
  if (done || done.error().sys_errno != EBUSY) return done;
  const auto used = read_kernel_file(group_file(def, "memory", "memory.usage_in_bytes"), 64);
  const auto bytes = used ? parse_number<std::uint64_t>(trim(*used)) : std::nullopt;
  std::optional<std::uint64_t> limit;
  for (const auto& write : writes)
    if (write.file == "memory.limit_in_bytes") limit = parse_number<std::uint64_t>(write.value);
  if (!bytes || !limit) return done;
  return fail(VIR_ERR_OPERATION_FAILED,
              "domain " + quote(def.name) + " uses " + std::to_string(*bytes / 1024) +
                  " KiB of memory, and the kernel cannot free enough of it for a limit of " +
                  std::to_string(*limit / 1024) + " KiB: ask for more, or end processes of the domain first");
}

Result<void> Backend::write_block_io(const RunPtr& run, const DomainDef& def) const {
  std::map<std::string, DeviceNumber> devices;
  for (const auto& device : def.blkio.devices) {
    const auto number = device_number(device.path);
    if (!number) return fail(VIR_ERR_INVALID_ARG, quote(device.path) + " is no device of this host");
    devices[device.path] = *number;
  }
  const char* controller = uses_v2("io") ? "io" : "blkio";
  return write_limits(run, controller, io_writes(def, limit_context(controller), devices));
}

Result<void> Backend::apply_limits(DriverDomain& domain, DomainDef& live, Limits changed, const TypedParams& given) {
  RunPtr run;
  {
    const std::lock_guard lock(domain.mutex);
    TRY(require_active(domain));
    run = static_cast<UsernsDomain&>(domain).run;
  }
  connect_again(run);
  switch (changed) {
    case Limits::kMemorySize:
      // The size is a limit of its own, as in libvirt: also where <memtune> has set another.
      return write_memory(run, live,
                          {{uses_v2("memory") ? "memory.max" : "memory.limit_in_bytes",
                            std::to_string(current_memory_kib(live) * 1024)}});
    case Limits::kMemory:
      return write_memory(run, live, memory_changes(live, given, limit_context("memory")));
    case Limits::kCpu:
      return write_limits(run, "cpu", cpu_writes(live, limit_context("cpu").files));
    case Limits::kVcpuCount:
      // Asked for while it runs: said outright, also where it is the maximum, because it limits (cpu_list).
      live.vcpu.current = current_vcpus(live);
      [[fallthrough]];
    case Limits::kVcpuPins: {
      const PlanContext context = TRY(observe({}, host_, config_, paths_));
      return write_limits(run, "cpuset", {{"cpuset.cpus", cpu_list(live, context.cpuset_cpus)}});
    }
    case Limits::kBlockIo:
      return write_block_io(run, live);
  }
  return {};
}

void Backend::read_limits(DomainDef& live, Limits wanted) {
  if (wanted == Limits::kMemory) {
    // What runs has the limit that was set last, by <memtune> or by the size of the memory: only its group knows.
    const auto text =
        read_kernel_file(group_file(live, "memory", uses_v2("memory") ? "memory.max" : "memory.limit_in_bytes"), 64);
    if (!text) return;
    if (const auto bytes = parse_number<std::uint64_t>(trim(*text)))
      // v1 has no word for "none": the highest number, rounded to pages, of which no machine has even half.
      live.memtune.hard_limit_kib = *bytes / 1024 > kMemoryUnlimitedKib / 2 ? kMemoryUnlimitedKib : *bytes / 1024;
    else if (trim(*text) == "max")
      live.memtune.hard_limit_kib = kMemoryUnlimitedKib;
  } else if (wanted == Limits::kBlockIo) {
    // What runs has a weight even where <blkiotune> says nothing: "100", with cgroup v2 "default 100".
    const bool is_v2 = uses_v2("io");
    const char* controller = is_v2 ? "io" : "blkio";
    const auto file = is_v2 ? std::string("io.weight") : limit_context(controller).blkio_weight_file;
    const auto text = read_kernel_file(group_file(live, controller, file.c_str()), 4096);
    const auto words = text ? split_blanks(*text) : std::vector<std::string_view>();
    if (words.empty()) return;
    if (const auto weight = parse_number<std::uint32_t>(words[words[0] == "default" && words.size() > 1 ? 1 : 0]))
      live.blkio.weight = *weight;
  }
}

}  // namespace virtuserns::userns
