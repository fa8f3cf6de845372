// What can be seen of a domain: read from its groups and links at the time of asking.
#include <arpa/inet.h>
#include <libvirt/libvirt.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/domain_devices.h"
#include "driver/userns/backend.h"
#include "driver/userns/observe.h"
#include "driver/userns/tree_usage.h"

namespace virtuserns::userns {

namespace {

constexpr std::uint64_t kNsPerTick = 10'000'000;  // USER_HZ is 100 on every Linux

std::optional<std::uint64_t> read_number(const std::string& path) {
  const auto text = path.empty() ? Result<std::string>(Error{}) : read_kernel_file(path, 4096);
  return text ? parse_number<std::uint64_t>(trim(*text)) : std::nullopt;
}

// "key value" lines.
std::map<std::string, std::uint64_t, std::less<>> read_table(const std::string& path) {
  std::map<std::string, std::uint64_t, std::less<>> table;
  if (path.empty()) return table;
  const auto text = read_kernel_file(path, 256 * 1024);
  if (!text) return table;
  for (const auto line : split(*text, '\n')) {
    const auto fields = split_blanks(line);
    if (fields.size() != 2) continue;
    if (const auto value = parse_number<std::uint64_t>(fields[1])) table[std::string(fields[0])] = *value;
  }
  return table;
}

// "8:0 Read 4096" lines of v1, by device.
using DeviceCounts = std::map<std::string, std::pair<std::int64_t, std::int64_t>, std::less<>>;  // reads, writes
DeviceCounts read_blkio(const std::string& path) {
  DeviceCounts counts;
  const auto text = path.empty() ? Result<std::string>(Error{}) : read_kernel_file(path, 256 * 1024);
  for (const auto line : text ? split(*text, '\n') : std::vector<std::string_view>()) {
    const auto fields = split_blanks(line);
    const auto value = fields.size() == 3 ? parse_number<std::int64_t>(fields[2]) : std::nullopt;
    if (!value) continue;
    auto& [reads, writes] = counts[std::string(fields[0])];
    if (fields[1] == "Read") reads = *value;
    if (fields[1] == "Write") writes = *value;
  }
  return counts;
}

// Two parts of the kernel count for v1, each the same i/o: the throttle, on a device since the first rule for it, and
// bfq, on the devices that it schedules. So of each device the higher number; and 0 only where the root of the hierarchy
// shows that the device is counted at all, because a device that nobody counts has no line anywhere.
template <class GroupFile, class RootFile>
void add_blkio(const GroupFile& group, const RootFile& root, const char* what, const std::string& device,
               std::int64_t& reads, std::int64_t& writes) {
  DeviceCounts counts;
  for (const char* source : {"blkio.throttle.", "blkio.bfq."}) {
    for (const auto& [name, unused] : read_blkio(root(std::string(source) + what))) counts[name];
    for (const auto& [name, found] : read_blkio(group(std::string(source) + what))) {
      auto& [most_reads, most_writes] = counts[name];
      most_reads = std::max(most_reads, found.first), most_writes = std::max(most_writes, found.second);
    }
  }
  for (const auto& [name, found] : counts) {
    if (!device.empty() && name != device) continue;
    reads = std::max<std::int64_t>(reads, 0) + found.first;
    writes = std::max<std::int64_t>(writes, 0) + found.second;
  }
}

// "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ..." lines of v2.
BlockStats read_io_stat(const std::string& path, const std::string& device) {
  BlockStats stats{0, 0, 0, 0, -1};
  const auto text = read_kernel_file(path, 256 * 1024);
  if (!text) return {};
  for (const auto line : split(*text, '\n')) {
    const auto fields = split_blanks(line);
    if (fields.empty() || (!device.empty() && fields[0] != device)) continue;
    for (const auto field : fields) {
      const auto add = [&](std::string_view key, std::int64_t& to) {
        if (field.starts_with(key)) to += parse_number<std::int64_t>(field.substr(key.size())).value_or(0);
      };
      add("rbytes=", stats.read_bytes), add("wbytes=", stats.write_bytes), add("rios=", stats.read_requests),
          add("wios=", stats.write_requests);
    }
  }
  return stats;
}

// "name: bytes packets errs drop fifo frame compressed multicast", received and then sent. /proc/net/dev, because sysfs
// shows the links of the network namespace it was mounted in, which need not be the daemon's. The host's end of a veth
// sees what the domain sees, mirrored. Without such a link every counter is -1, libvirt's "not known".
InterfaceStats read_link(const std::string& proc, const std::string& host_name) {
  const auto text = read_kernel_file(proc + "/net/dev", 4 * 1024 * 1024);
  for (const auto line : text ? split(*text, '\n') : std::vector<std::string_view>()) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || trim(line.substr(0, colon)) != host_name) continue;
    const auto fields = split_blanks(line.substr(colon + 1));
    if (fields.size() < 12) break;
    const auto counter = [&](std::size_t i) { return parse_number<std::int64_t>(fields[i]).value_or(-1); };
    return {counter(8), counter(9), counter(10), counter(11), counter(0), counter(1), counter(2), counter(3)};
  }
  return {};
}

bool is_link_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

std::string device_text(const std::string& path) {
  const auto number = device_number(path);
  return number ? std::to_string(number->major) + ":" + std::to_string(number->minor) : "";
}

struct CpuTimes {
  std::uint64_t total_ns = 0, user_ns = 0, system_ns = 0;
};

}  // namespace

// Empty: this host has no such controller.
std::string Backend::group_file(const DomainDef& def, const char* controller, const char* file) const {
  for (const auto& hierarchy : host_.hierarchies) {
    const bool has = std::find(hierarchy.controllers.begin(), hierarchy.controllers.end(), controller) !=
                     hierarchy.controllers.end();
    // cpu.stat and its like are there without the controller.
    if (has || (hierarchy.is_v2 && *controller == '\0'))
      return hierarchy.mount + "/" + group_path(def, config_, scope_group_of(def.uuid), hierarchy) + "/" + file;
  }
  return {};
}

namespace {

template <class GroupFile>
std::optional<CpuTimes> read_group_cpu(const GroupFile& file) {
  // The parts before the whole: a running domain must not show a part that is larger.
  auto user = read_number(file("cpuacct", "cpuacct.usage_user")),
       system = read_number(file("cpuacct", "cpuacct.usage_sys"));
  if (const auto total = read_number(file("cpuacct", "cpuacct.usage"))) {
    if (!user || !system) {
      const auto ticks = read_table(file("cpuacct", "cpuacct.stat"));
      user = ticks.count("user") ? ticks.at("user") * kNsPerTick : 0,
      system = ticks.count("system") ? ticks.at("system") * kNsPerTick : 0;
    }
    return CpuTimes{*total, *user, *system};
  }
  const auto table = read_table(file("", "cpu.stat"));
  if (table.empty()) return std::nullopt;
  const auto us = [&](const char* key) { return table.count(key) ? table.at(key) * 1000 : 0; };
  return CpuTimes{us("usage_usec"), us("user_usec"), us("system_usec")};
}

// As the group counts; without one, as the processes do together.
template <class GroupFile>
CpuTimes read_cpu(const GroupFile& file, const std::string& proc, pid_t controller) {
  if (const auto times = read_group_cpu(file)) return *times;
  const auto usage = controller > 0 ? usage_of_tree(proc, controller) : TreeUsage();
  return {usage.user_ns + usage.system_ns, usage.user_ns, usage.system_ns};
}

template <class GroupFile>
std::vector<MemorySample> read_memory(const GroupFile& file, const DomainDef& def) {
  std::vector<MemorySample> samples = {{VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON, current_memory_kib(def)}};
  const auto table = read_table(file("memory", "memory.stat"));
  const auto add = [&](int tag, std::initializer_list<const char*> keys, std::uint64_t divisor) {
    for (const char* key : keys)
      if (const auto found = table.find(key); found != table.end())
        return samples.push_back({tag, found->second / divisor});
  };
  // swap_in is pages read back from swap, or nothing: never the usage of memory and swap (bug X14 of libvirt's driver).
  add(VIR_DOMAIN_MEMORY_STAT_SWAP_IN, {"pswpin"}, 1);
  add(VIR_DOMAIN_MEMORY_STAT_SWAP_OUT, {"pswpout"}, 1);
  add(VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT, {"total_pgmajfault", "pgmajfault"}, 1);
  add(VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT, {"total_pgfault", "pgfault"}, 1);
  add(VIR_DOMAIN_MEMORY_STAT_RSS, {"total_rss", "anon"}, 1024);
  add(VIR_DOMAIN_MEMORY_STAT_DISK_CACHES, {"total_cache", "file"}, 1024);
  return samples;
}

template <class GroupFile>
std::uint64_t memory_usage_kib(const GroupFile& file, const std::string& proc, pid_t controller) {
  for (const char* name : {"memory.usage_in_bytes", "memory.current"})
    if (const auto bytes = read_number(file("memory", name))) return *bytes / 1024;
  return controller > 0 ? usage_of_tree(proc, controller).memory_kib : 0;
}

template <class GroupFile>
BlockStats read_block(const HostFacts& host, const GroupFile& file, const std::string& device) {
  if (const auto path = file("io", "io.stat"); !path.empty()) return read_io_stat(path, device);
  BlockStats stats;
  std::string mount;
  for (const auto& hierarchy : host.hierarchies)
    if (std::find(hierarchy.controllers.begin(), hierarchy.controllers.end(), "blkio") != hierarchy.controllers.end())
      mount = hierarchy.mount;
  if (mount.empty()) return stats;
  const auto group = [&](const std::string& name) { return file("blkio", name.c_str()); };
  const auto root = [&](const std::string& name) { return mount + "/" + name; };
  add_blkio(group, root, "io_service_bytes", device, stats.read_bytes, stats.write_bytes);
  add_blkio(group, root, "io_serviced", device, stats.read_requests, stats.write_requests);
  return stats;
}

}  // namespace

Result<DomainInfo> Backend::info(const Uuid& uuid) {
  DomainInfo info;
  DomainDef def;  // only what names the group
  pid_t supervisor = 0;
  {
    const Locked domain = TRY(find(uuid));
    info = info_locked(*domain);
    if (!domain->is_active()) return info;
    def.uuid = uuid;
    def.resource.partition = domain->def.resource.partition;
    supervisor = domain->def.id;
  }
  const auto file = [&](const char* controller, const char* name) { return group_file(def, controller, name); };
  info.cpu_time_ns = read_cpu(file, paths_.proc, supervisor).total_ns;
  info.memory_kib = std::min(memory_usage_kib(file, paths_.proc, supervisor), info.max_memory_kib);
  return info;
}

Result<std::vector<VcpuInfo>> Backend::vcpus(const Uuid& uuid) {
  DomainDef def;
  pid_t supervisor = 0;
  {
    const Locked domain = TRY(find(uuid));
    if (!domain->is_active())
      return fail(VIR_ERR_OPERATION_INVALID, "cannot retrieve vcpu information for inactive domain");
    def = domain->def;
    supervisor = domain->def.id;
  }
  const std::size_t cpus = host_.node.present_cpus.empty() ? host_.node.cpus : host_.node.present_cpus.size();
  const auto pins = virtuserns::vcpu_pins(def, cpus);
  const auto file = [&](const char* controller, const char* name) { return group_file(def, controller, name); };
  const auto total = read_cpu(file, paths_.proc, supervisor).total_ns;
  const std::uint32_t count = std::max(1u, current_vcpus(def));
  std::vector<VcpuInfo> list;
  for (std::uint32_t number = 0; number < count; ++number) {
    VcpuInfo vcpu;
    vcpu.number = number;
    vcpu.state = VIR_VCPU_RUNNING;
    // The processes of a container are no vcpus: its time is shared out among them.
    vcpu.cpu_time_ns = total / count;
    if (number < pins.size()) vcpu.affinity = pins[number];
    const auto first = std::find(vcpu.affinity.begin(), vcpu.affinity.end(), true);
    vcpu.cpu = first == vcpu.affinity.end() ? -1 : static_cast<int>(first - vcpu.affinity.begin());
    list.push_back(std::move(vcpu));
  }
  return list;
}

Result<std::vector<MemoryStat>> Backend::memory_stats(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainMemoryStats"));
  const DomainDef def = TRY(find_active(uuid))->def;
  std::vector<MemoryStat> stats;
  for (const auto& sample : read_memory([&](const char*c, const char*f) { return group_file(def, c, f); }, def))
    stats.push_back({sample.tag, sample.value});
  return stats;
}

Result<BlockStats> Backend::block_stats(const Uuid& uuid, const std::string& path) {
  const DomainDef def = TRY(find_active(uuid))->def;
  std::string device;
  if (!path.empty()) {
    const auto disk = std::find_if(def.disks.begin(), def.disks.end(),
                                   [&](const DiskDef& d) { return d.target_dev == path || d.source == path; });
    const auto fs = std::find_if(def.filesystems.begin(), def.filesystems.end(), [&](const FilesystemDef& f) {
      return f.type == FilesystemType::kBlock && (f.source == path || f.target == path);
    });
    if (disk == def.disks.end() && fs == def.filesystems.end())
      return fail(VIR_ERR_INVALID_ARG, "invalid path: " + path);
    device = device_text(disk != def.disks.end() ? disk->source : fs->source);
    if (device.empty()) return fail(VIR_ERR_INTERNAL_ERROR, "no device behind " + quote(path));
  }
  return read_block(
      host_, [&](const char* c, const char* f) { return group_file(def, c, f); }, device);
}

Result<InterfaceStats> Backend::interface_stats(const Uuid& uuid, const std::string& device) {
  const Locked domain = TRY(find_active(uuid));
  const InterfaceDef* found = TRY(find_interface(domain->def, device));
  if (!is_link_name(found->target_dev))
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "interface '" + device + "' has no end on the host");
  return read_link(paths_.proc, found->target_dev);
}

Result<std::vector<InterfaceAddresses>> Backend::interface_addresses(const Uuid& uuid, unsigned source,
                                                                     unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainInterfaceAddresses"));
  if (source > VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP)
    return fail(VIR_ERR_ARGUMENT_UNSUPPORTED, "Unknown IP address data source " + std::to_string(source));
  RunPtr run;
  std::vector<InterfaceDef> links;
  {
    const Locked domain = TRY(find_active(uuid));
    run = domain->run;
    links = domain->def.interfaces;
  }
  // Whatever the source that is asked for: what the links inside really have answers all of them.
  connect_again(run);
  Answer answer = TRY(run->channel->request(controller::AddressesRequest{}, kRequestTimeoutMs));
  const auto* reply = std::get_if<controller::AddressesReply>(&answer.body);
  if (!reply) return fail(VIR_ERR_INTERNAL_ERROR, "the domain's controller answered something else");
  std::vector<InterfaceAddresses> list;
  for (const auto& link : reply->links) {
    const auto outside = std::find_if(links.begin(), links.end(), [&](const InterfaceDef& def) {
      return def.mac && format_mac(*def.mac) == link.hardware_address;
    });
    // From the lease or ARP table a host knows its own ends only; an agent's view has the names inside, and lo.
    if (source != VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT && outside == links.end()) continue;
    InterfaceAddresses one{source == VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT ? link.name : outside->target_dev,
                           link.hardware_address,
                           {}};
    for (const auto& address : link.addresses) {
      char text[INET6_ADDRSTRLEN];
      const bool is_v4 = address.bytes.size() == 4;
      if ((!is_v4 && address.bytes.size() != 16) ||
          !::inet_ntop(is_v4 ? AF_INET : AF_INET6, address.bytes.data(), text, sizeof text))
        continue;
      one.addresses.push_back({is_v4 ? VIR_IP_ADDR_TYPE_IPV4 : VIR_IP_ADDR_TYPE_IPV6, text, address.prefix});
    }
    list.push_back(std::move(one));
  }
  return list;
}

Result<CpuStats> Backend::cpu_stats(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_TYPED_PARAM_STRING_OKAY, "virDomainGetCPUStats"));
  DomainDef def;
  pid_t supervisor = 0;
  {
    const Locked domain = TRY(find_active(uuid));
    def = domain->def;
    supervisor = domain->def.id;
  }
  const auto file = [&](const char* controller, const char* name) { return group_file(def, controller, name); };
  const auto times = read_cpu(file, paths_.proc, supervisor);
  CpuStats stats;
  stats.cpus =
      host_.node.present_cpus.empty() ? host_.node.cpus : static_cast<std::uint32_t>(host_.node.present_cpus.size());
  stats.total = {{VIR_DOMAIN_CPU_STATS_CPUTIME, times.total_ns},
                 {VIR_DOMAIN_CPU_STATS_USERTIME, times.user_ns},
                 {VIR_DOMAIN_CPU_STATS_SYSTEMTIME, times.system_ns}};
  const auto text = read_kernel_file(file("cpuacct", "cpuacct.usage_percpu"), 64 * 1024);
  const auto numbers = text ? split_blanks(*text) : std::vector<std::string_view>();
  for (std::uint32_t cpu = 0; cpu < stats.cpus; ++cpu) {
    const auto value = cpu < numbers.size() ? parse_number<std::uint64_t>(numbers[cpu]) : std::nullopt;
    // v2 does not count by cpu: no field is better than a made-up one.
    stats.per_cpu.push_back(value ? TypedParams{{VIR_DOMAIN_CPU_STATS_CPUTIME, *value}} : TypedParams{});
  }
  return stats;
}

void Backend::sample_live(DriverDomain& domain, const DomainDef& def, StatsSample& sample) {
  const auto file = [&](const char* controller, const char* name) { return group_file(def, controller, name); };
  const auto times = read_cpu(file, paths_.proc, domain.def.id);
  sample.cpu_time_ns = times.total_ns;
  sample.cpu_user_ns = times.user_ns;
  sample.cpu_system_ns = times.system_ns;
  sample.memory = read_memory(file, def);
  for (const auto& link : def.interfaces)
    if (is_link_name(link.target_dev))
      sample.interfaces.push_back(sample_of(link.target_dev, read_link(paths_.proc, link.target_dev)));
  for (const auto& disk : def.disks)
    if (const auto device = device_text(disk.source); !device.empty())
      sample.blocks.push_back(sample_of(disk, read_block(host_, file, device)));
}

Result<std::string> Backend::domain_hostname(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_GET_HOSTNAME_LEASE | VIR_DOMAIN_GET_HOSTNAME_AGENT,
                           "virDomainGetHostname"));
  const Locked domain = TRY(find_active(uuid));
  const auto name = guest_hostname(domain->def.name);
  if (name.empty()) return fail(VIR_ERR_NO_HOSTNAME, "no hostname found for domain " + domain->def.name);
  return name;
}

}  // namespace virtuserns::userns
