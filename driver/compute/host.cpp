#include "driver/compute/host.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/compute/guest_types.h"

namespace virtuserns::compute {
namespace {

using client::last_error;

constexpr std::uint64_t kMib = 1024 * 1024, kGib = 1024 * kMib;

Json to_json(const std::vector<GuestType>& types) {
  Json all = Json::array();
  for (const auto& type : types) all.push_back({type.arch, type.virt, type.os});
  return all;
}

struct DiskSpace {
  std::uint64_t total_gb = 0, free_gb = 0;
};
Result<DiskSpace> space_of(const std::string& folder) {
  struct statvfs found {};
  if (::statvfs(folder.c_str(), &found) != 0) return sys_fail("look at the space of " + quote(folder));
  return DiskSpace{found.f_blocks * found.f_frsize / kGib, found.f_bavail * found.f_frsize / kGib};
}

Result<virNodeInfo> node_info(Hypervisor& hypervisor) {
  return hypervisor.run([](virConnectPtr connection) -> Result<virNodeInfo> {
    virNodeInfo info{};
    if (::virNodeGetInfo(connection, &info) != 0) return last_error("ask for the host's processors and memory");
    return info;
  });
}

// The value of "key : value" where that stands first.
std::string cpuinfo_value(std::string_view cpuinfo, std::string_view key) {
  for (const auto line : split(cpuinfo, '\n')) {
    const auto colon = line.find(':');
    if (colon != std::string_view::npos && trim(line.substr(0, colon)) == key)
      return std::string(trim(line.substr(colon + 1)));
  }
  return "";
}

Result<std::string> read_cpuinfo() { return read_kernel_file("/proc/cpuinfo"); }

std::string flags_of(std::string_view cpuinfo) { return cpuinfo_value(cpuinfo, "flags"); }

struct Identity {
  std::string hostname, type;
  unsigned long version = 0;
};
Result<Identity> identity_of(Hypervisor& hypervisor) {
  return hypervisor.run([](virConnectPtr connection) -> Result<Identity> {
    Identity identity;
    const std::unique_ptr<char, decltype(&::free)> name(::virConnectGetHostname(connection), &::free);
    if (!name) return last_error("ask for the host's name");
    identity.hostname = name.get();
    const char* type = ::virConnectGetType(connection);
    if (!type || ::virConnectGetVersion(connection, &identity.version) != 0)
      return last_error("ask for the kind of hypervisor");
    identity.type = type;
    return identity;
  });
}

}  // namespace

std::vector<std::string> cpu_traits(std::string_view cpuinfo) {
  // Linux's names of flags that are not Placement's in capitals.
  static const std::map<std::string_view, std::string_view> names = {{"pni", "SSE3"},
                                                                     {"sse4_1", "SSE41"},
                                                                     {"sse4_2", "SSE42"},
                                                                     {"avx512f", "AVX512F"},
                                                                     {"avx512cd", "AVX512CD"},
                                                                     {"avx512dq", "AVX512DQ"},
                                                                     {"avx512bw", "AVX512BW"},
                                                                     {"avx512vl", "AVX512VL"},
                                                                     {"avx512_vnni", "AVX512VNNI"},
                                                                     {"vmx", "VMX"},
                                                                     {"svm", "SVM"},
                                                                     {"aes", "AESNI"},
                                                                     {"sha_ni", "SHA"},
                                                                     {"fma", "FMA3"},
                                                                     {"fma4", "FMA4"},
                                                                     {"avx", "AVX"},
                                                                     {"avx2", "AVX2"},
                                                                     {"bmi1", "BMI"},
                                                                     {"bmi2", "BMI2"},
                                                                     {"f16c", "F16C"},
                                                                     {"mmx", "MMX"},
                                                                     {"sse", "SSE"},
                                                                     {"sse2", "SSE2"},
                                                                     {"ssse3", "SSSE3"},
                                                                     {"sse4a", "SSE4A"},
                                                                     {"xop", "XOP"},
                                                                     {"tbm", "TBM"},
                                                                     {"abm", "ABM"},
                                                                     {"pclmulqdq", "CLMUL"},
                                                                     {"3dnow", "3DNOW"},
                                                                     {"avx512ifma", "AVX512IFMA"},
                                                                     {"avx512vbmi", "AVX512VBMI"},
                                                                     {"avx512_vbmi2", "AVX512VBMI2"},
                                                                     {"avx512_bitalg", "AVX512BITALG"},
                                                                     {"vaes", "AVX512VAES"},
                                                                     {"gfni", "AVX512GFNI"},
                                                                     {"vpclmulqdq", "AVX512VPCLMULQDQ"},
                                                                     {"pdpe1gb", "PDPE1GB"},
                                                                     {"mpx", "MPX"},
                                                                     {"asf", "ASF"},
                                                                     {"stibp", "STIBP"}};
  std::vector<std::string> traits;
  const auto flags = flags_of(cpuinfo);
  for (const auto flag : split_blanks(flags))
    if (const auto found = names.find(flag); found != names.end())
      traits.push_back("HW_CPU_X86_" + std::string(found->second));
  std::sort(traits.begin(), traits.end());
  return traits;
}

Result<std::string> Host::hypervisor_type() { return TRY(identity_of(compute_.hypervisor())).type; }

Result<Json> Host::describe() {
  auto& hypervisor = compute_.hypervisor();
  const auto identity = TRY(identity_of(hypervisor));
  const auto node = TRY(node_info(hypervisor));
  const auto cpuinfo = TRY(read_cpuinfo());
  const auto& guests = compute_.guests();
  Json features = Json::object(), refused = Json::object();
  for (const auto feature : kFeatures) features[std::string(feature)] = static_cast<bool>(guests.check(feature));
  for (const auto& refusal : guests.refusals()) refused[std::string(refusal.feature)] = std::string(refusal.reason);
  const auto guest_types = TRY(read_guest_types(TRY(hypervisor.capabilities())));
  Json flags = Json::array();
  const auto words = flags_of(cpuinfo);
  for (const auto flag : split_blanks(words)) flags.push_back(std::string(flag));
  return Json{
      {"hostname", identity.hostname},
      {"uri", hypervisor.uri()},
      {"hypervisor_type", identity.type},
      {"hypervisor_version", identity.version},
      {"kind", std::string(guests.kind())},
      {"architecture", node.model},
      {"guest_types", to_json(guest_types)},
      {"features", features},
      {"refused", refused},
      {"image_formats", guests.image_formats()},
      {"address", compute_.settings().console_address},
      {"cpu",
       {{"model", cpuinfo_value(cpuinfo, "model name")},
        {"vendor", cpuinfo_value(cpuinfo, "vendor_id")},
        {"topology",
         {{"sockets", node.sockets * std::max(1u, node.nodes)}, {"cores", node.cores}, {"threads", node.threads}}},
        {"features", flags}}}};
}

Result<Json> Host::resources() {
  auto& hypervisor = compute_.hypervisor();
  const auto node = TRY(node_info(hypervisor));
  const auto space = TRY(space_of(compute_.settings().state));
  const auto claimed = compute_.claimed();
  const auto free_bytes = TRY(hypervisor.run([](virConnectPtr connection) -> Result<std::uint64_t> {
    const auto bytes = ::virNodeGetFreeMemory(connection);
    if (bytes == 0) return last_error("ask for the host's free memory");
    return static_cast<std::uint64_t>(bytes);
  }));
  const std::uint64_t memory_mb = node.memory / 1024;
  return Json{{"vcpus", node.cpus},
              {"vcpus_used", claimed.vcpus},
              {"memory_mb", memory_mb},
              {"memory_mb_used", memory_mb - std::min(memory_mb, free_bytes / kMib)},
              {"disk_gb", space.total_gb},
              {"disk_gb_used", space.total_gb - std::min(space.total_gb, space.free_gb)},
              {"disk_available_gb", space.free_gb},
              {"running", claimed.instances}};
}

Result<Json> Host::inventory() {
  const auto node = TRY(node_info(compute_.hypervisor()));
  const auto space = TRY(space_of(compute_.settings().state));
  const auto total = [](std::uint64_t amount, std::uint64_t most) {
    return Json{{"total", amount}, {"max_unit", most}};
  };
  Json inventory = TRY(compute_.guests().inventory());
  inventory["VCPU"] = total(node.cpus, node.cpus);
  inventory["MEMORY_MB"] = total(node.memory / 1024, node.memory / 1024);
  inventory["DISK_GB"] = total(space.total_gb, space.total_gb);
  const auto traits = TRY(compute_.guests().traits());
  return Json{{"inventory", inventory}, {"traits", traits}};
}

Result<Json> Host::uptime() {
  const auto uptime = TRY(read_kernel_file("/proc/uptime"));
  const auto load = TRY(read_kernel_file("/proc/loadavg"));
  const auto fields = split_blanks(load);
  if (fields.size() < 3) return fail(VIR_ERR_INTERNAL_ERROR, "/proc/loadavg is not as it should be");
  Json loads = Json::array();
  for (int i = 0; i < 3; ++i) loads.push_back(std::strtod(std::string(fields[i]).c_str(), nullptr));
  return Json{
      {"seconds", static_cast<std::uint64_t>(std::strtod(uptime.c_str(), nullptr))}, {"load", loads}, {"users", 0}};
}

Result<Json> Host::cpu_stats() {
  auto& hypervisor = compute_.hypervisor();
  const auto mhz = TRY(node_info(hypervisor)).mhz;
  return hypervisor.run([&](virConnectPtr connection) -> Result<Json> {
    int count = 0;
    if (::virNodeGetCPUStats(connection, VIR_NODE_CPU_STATS_ALL_CPUS, nullptr, &count, 0) != 0)
      return last_error("ask for the host's processor times");
    std::vector<virNodeCPUStats> stats(static_cast<std::size_t>(std::max(count, 0)));
    if (::virNodeGetCPUStats(connection, VIR_NODE_CPU_STATS_ALL_CPUS, stats.data(), &count, 0) != 0)
      return last_error("ask for the host's processor times");
    Json json = {{"frequency", mhz}};
    for (const auto& stat : stats) json[stat.field] = stat.value;
    return json;
  });
}

}  // namespace virtuserns::compute
