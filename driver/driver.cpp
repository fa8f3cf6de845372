// What a driver that does not have an operation answers: NO_SUPPORT with the name of libvirt's function.
#include "driver/driver.h"

#include <unistd.h>

#include <array>

namespace virtuserns {

Result<void> refuse_unknown_flags(unsigned flags, unsigned known, const char* function) {
  if ((flags & ~known) == 0) return {};
  std::array<char, 16> hex;
  std::snprintf(hex.data(), hex.size(), "0x%x", flags & ~known);
  return fail(VIR_ERR_INVALID_ARG, std::string("unsupported flags (") + hex.data() + ") in function " + function);
}

namespace {
Error unsupported(const char* function) { return fail(VIR_ERR_NO_SUPPORT, function); }
}  // namespace

// ---- host ----
Result<std::uint64_t> Driver::hypervisor_version() { return unsupported("virConnectGetVersion"); }
Result<std::string> Driver::hostname() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return sys_fail("get the host's name");
  return std::string(name.data());
}
Result<Capabilities> Driver::capabilities() { return unsupported("virConnectGetCapabilities"); }
Result<DomainCapabilities> Driver::domain_capabilities(const std::string&, const std::string&, const std::string&,
                                                       const std::string&) {
  return unsupported("virConnectGetDomainCapabilities");
}
Result<int> Driver::max_vcpus(const std::string&) { return unsupported("virConnectGetMaxVcpus"); }
Result<NodeFacts> Driver::node_facts() { return unsupported("virNodeGetInfo"); }
Result<std::vector<NodeStat>> Driver::node_cpu_stats(int, unsigned) { return unsupported("virNodeGetCPUStats"); }
Result<std::vector<NodeStat>> Driver::node_memory_stats(int, unsigned) {
  return unsupported("virNodeGetMemoryStats");
}
Result<std::uint64_t> Driver::node_free_memory_bytes() { return unsupported("virNodeGetFreeMemory"); }
Result<std::vector<std::uint64_t>> Driver::node_cells_free_memory_bytes(int, int) {
  return unsupported("virNodeGetCellsFreeMemory");
}
Result<std::vector<std::uint64_t>> Driver::node_free_pages(const std::vector<std::uint32_t>&, int, unsigned,
                                                           unsigned) {
  return unsupported("virNodeGetFreePages");
}
Result<std::string> Driver::sysinfo(unsigned) { return unsupported("virConnectGetSysinfo"); }
Result<SecurityModel> Driver::security_model() { return unsupported("virNodeGetSecurityModel"); }

// ---- definitions ----
Result<DomainRef> Driver::define(const Caller&, DomainDef, unsigned) {
  return unsupported("virDomainDefineXMLFlags");
}
Result<void> Driver::undefine(const Caller&, const Uuid&, unsigned) { return unsupported("virDomainUndefineFlags"); }
Result<DomainDef> Driver::definition(const Caller&, const Uuid&, unsigned) {
  return unsupported("virDomainGetXMLDesc");
}
Result<void> Driver::rename(const Caller&, const Uuid&, const std::string&, unsigned) {
  return unsupported("virDomainRename");
}
Result<bool> Driver::autostart(const Uuid&) { return unsupported("virDomainGetAutostart"); }
Result<void> Driver::set_autostart(const Caller&, const Uuid&, bool) { return unsupported("virDomainSetAutostart"); }
Result<bool> Driver::is_active(const Uuid&) { return unsupported("virDomainIsActive"); }
Result<bool> Driver::is_persistent(const Uuid&) { return unsupported("virDomainIsPersistent"); }
Result<bool> Driver::is_updated(const Uuid&) { return unsupported("virDomainIsUpdated"); }
Result<bool> Driver::has_managed_save(const Uuid&, unsigned) { return unsupported("virDomainHasManagedSaveImage"); }
Result<std::string> Driver::metadata(const Uuid&, int, const std::string&, unsigned) {
  return unsupported("virDomainGetMetadata");
}
Result<void> Driver::set_metadata(const Caller&, const Uuid&, int, std::optional<std::string>, const std::string&,
                                  unsigned) {
  return unsupported("virDomainSetMetadata");
}
Result<std::string> Driver::to_native(const std::string&, DomainDef, unsigned) {
  return unsupported("virConnectDomainXMLToNative");
}

// ---- lifecycle ----
Result<DomainRef> Driver::create(const Caller&, const Uuid&, std::vector<Fd>, unsigned) {
  return unsupported("virDomainCreateWithFlags");
}
Result<DomainRef> Driver::create_transient(const Caller&, DomainDef, std::vector<Fd>, unsigned) {
  return unsupported("virDomainCreateXML");
}
Result<void> Driver::shutdown(const Caller&, const Uuid&, unsigned) { return unsupported("virDomainShutdownFlags"); }
Result<void> Driver::reboot(const Caller&, const Uuid&, unsigned) { return unsupported("virDomainReboot"); }
Result<void> Driver::reset(const Caller&, const Uuid&, unsigned) { return unsupported("virDomainReset"); }
Result<void> Driver::destroy(const Caller&, const Uuid&, unsigned) { return unsupported("virDomainDestroyFlags"); }
Result<void> Driver::suspend(const Caller&, const Uuid&) { return unsupported("virDomainSuspend"); }
Result<void> Driver::resume(const Caller&, const Uuid&) { return unsupported("virDomainResume"); }
Result<void> Driver::send_process_signal(const Caller&, const Uuid&, std::int64_t, unsigned, unsigned) {
  return unsupported("virDomainSendProcessSignal");
}
Result<void> Driver::set_user_password(const Caller&, const Uuid&, const std::string&, const std::string&, unsigned) {
  return unsupported("virDomainSetUserPassword");
}
Result<void> Driver::core_dump(const Caller&, const Uuid&, const std::string&, unsigned) {
  return unsupported("virDomainCoreDump");
}

// ---- watching ----
Result<DomainInfo> Driver::info(const Uuid&) { return unsupported("virDomainGetInfo"); }
Result<DomainState> Driver::state(const Uuid&, unsigned) { return unsupported("virDomainGetState"); }
Result<ControlInfo> Driver::control_info(const Uuid&, unsigned) { return unsupported("virDomainGetControlInfo"); }
Result<std::vector<VcpuInfo>> Driver::vcpus(const Uuid&) { return unsupported("virDomainGetVcpus"); }
Result<int> Driver::vcpu_count(const Uuid&, unsigned) { return unsupported("virDomainGetVcpusFlags"); }
Result<std::vector<std::vector<bool>>> Driver::vcpu_pins(const Uuid&, unsigned) {
  return unsupported("virDomainGetVcpuPinInfo");
}
Result<std::vector<MemoryStat>> Driver::memory_stats(const Uuid&, unsigned) {
  return unsupported("virDomainMemoryStats");
}
Result<BlockStats> Driver::block_stats(const Uuid&, const std::string&) { return unsupported("virDomainBlockStats"); }
Result<InterfaceStats> Driver::interface_stats(const Uuid&, const std::string&) {
  return unsupported("virDomainInterfaceStats");
}
Result<std::vector<InterfaceAddresses>> Driver::interface_addresses(const Uuid&, unsigned, unsigned) {
  return unsupported("virDomainInterfaceAddresses");
}
Result<CpuStats> Driver::cpu_stats(const Uuid&, unsigned) { return unsupported("virDomainGetCPUStats"); }
Result<std::optional<OwnerDef>> Driver::owner(const Uuid&) { return unsupported("virDomainGetXMLDesc"); }
Result<std::vector<DomainStats>> Driver::all_stats(const std::vector<Uuid>&, unsigned, unsigned) {
  return unsupported("virConnectGetAllDomainStats");
}
Result<std::string> Driver::domain_hostname(const Uuid&, unsigned) { return unsupported("virDomainGetHostname"); }
Result<std::vector<std::string>> Driver::messages(const Uuid&, unsigned) {
  return unsupported("virDomainGetMessages");
}
Result<SecurityLabel> Driver::security_label(const Uuid&) { return unsupported("virDomainGetSecurityLabel"); }

// ---- tuning ----
Result<std::uint64_t> Driver::max_memory_kib(const Uuid&) { return unsupported("virDomainGetMaxMemory"); }
Result<void> Driver::set_memory(const Caller&, const Uuid&, std::uint64_t, unsigned) {
  return unsupported("virDomainSetMemoryFlags");
}
Result<TypedParams> Driver::memory_parameters(const Uuid&, unsigned) {
  return unsupported("virDomainGetMemoryParameters");
}
Result<void> Driver::set_memory_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned) {
  return unsupported("virDomainSetMemoryParameters");
}
Result<std::string> Driver::scheduler_type(const Uuid&, int*) { return unsupported("virDomainGetSchedulerType"); }
Result<TypedParams> Driver::scheduler_parameters(const Uuid&, unsigned) {
  return unsupported("virDomainGetSchedulerParametersFlags");
}
Result<void> Driver::set_scheduler_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned) {
  return unsupported("virDomainSetSchedulerParametersFlags");
}
Result<TypedParams> Driver::blkio_parameters(const Uuid&, unsigned) {
  return unsupported("virDomainGetBlkioParameters");
}
Result<void> Driver::set_blkio_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned) {
  return unsupported("virDomainSetBlkioParameters");
}
Result<void> Driver::set_vcpus(const Caller&, const Uuid&, unsigned, unsigned) {
  return unsupported("virDomainSetVcpusFlags");
}
Result<void> Driver::pin_vcpu(const Caller&, const Uuid&, unsigned, const std::vector<bool>&, unsigned) {
  return unsupported("virDomainPinVcpuFlags");
}

// ---- devices ----
Result<void> Driver::attach_device(const Caller&, const Uuid&, DeviceDef, unsigned) {
  return unsupported("virDomainAttachDeviceFlags");
}
Result<void> Driver::detach_device(const Caller&, const Uuid&, DeviceDef, unsigned) {
  return unsupported("virDomainDetachDeviceFlags");
}
Result<void> Driver::update_device(const Caller&, const Uuid&, DeviceDef, unsigned) {
  return unsupported("virDomainUpdateDeviceFlags");
}
Result<SocketFd> Driver::open_console(const Caller&, const Uuid&, const std::string&, unsigned) {
  return unsupported("virDomainOpenConsole");
}
Result<NamespaceFds> Driver::open_namespaces(const Caller&, const Uuid&, unsigned) {
  return unsupported("virDomainLxcOpenNamespace");
}
Result<StartedCommand> Driver::exec(const Caller&, const Uuid&, const ExecDef&, Fd) { return unsupported("exec"); }

}  // namespace virtuserns
