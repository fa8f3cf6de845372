#include "driver/rpc/table.h"

#include <libvirt/libvirt.h>

#include <algorithm>
#include <map>
#include <type_traits>

#include "driver/rpc/handlers.h"

namespace virtuserns::rpc {
namespace {

constexpr auto kRead = Access::kRead;
constexpr auto kWrite = Access::kWrite;
using enum Priority;

template <class T>
struct HandlerTraits;
template <class R>
struct HandlerTraits<Result<R> (*)(Call&)> {
  using Args = void;
  using Reply = R;
};
template <class R, class A>
struct HandlerTraits<Result<R> (*)(Call&, const A&)> {
  using Args = A;
  using Reply = R;
};

// What some calls may do only with certain flags (or a certain source) they may not do on a read-only connection.
template <class Args>
Result<void> check_write_flags(const Call& call, const Args& args) {
  if (!call.is_read_only() || call.row.write_flags == 0) return {};
  bool is_denied = false;
  if constexpr (requires { args.source; })
    is_denied = args.source == call.row.write_flags;
  else if constexpr (requires { args.flags; })
    is_denied = (args.flags & call.row.write_flags) != 0;
  if (is_denied) return fail(VIR_ERR_OPERATION_DENIED, std::string("read only access prevents ") + call.row.name);
  return {};
}

template <auto kHandler>
auto call_handler(Call& call, std::span<const std::uint8_t> payload)
    -> Result<typename HandlerTraits<decltype(kHandler)>::Reply> {
  using Args = typename HandlerTraits<decltype(kHandler)>::Args;
  if constexpr (std::is_void_v<Args>) {
    return kHandler(call);
  } else {
    // Text and lists are copied out of the message once; the budget leaves room for nothing more.
    const Args args = TRY(xdr::decode<Args>(payload, 2 * kMaxPayloadBytes));
    TRY(check_write_flags(call, args));
    return kHandler(call, args);
  }
}

template <auto kHandler>
Result<void> run(Call& call, std::span<const std::uint8_t> payload, std::vector<std::uint8_t>& reply) {
  if constexpr (std::is_void_v<typename HandlerTraits<decltype(kHandler)>::Reply>) {
    return call_handler<kHandler>(call, payload);
  } else {
    const auto value = TRY(call_handler<kHandler>(call, payload));
    xdr::Writer(reply).write(value);
    return {};
  }
}

// Priorities are libvirt's, but for define (11, 350): parsing foreign XML may take long, and must not fill the lane that
// keeps the daemon answering.
constexpr Row kRows[] = {
    // clang-format off
    {1, "virConnectOpen", &run<&connect_open>, kRead, kHigh, Needs::kAuth},
    {2, "virConnectClose", &run<&connect_close>, kRead, kInline, Needs::kNothing},
    {3, "virConnectGetType", &run<&connect_get_type>, kRead, kHigh},
    {4, "virConnectGetVersion", &run<&connect_get_version>, kRead, kHigh},
    {5, "virConnectGetMaxVcpus", &run<&connect_get_max_vcpus>, kRead, kHigh},
    {6, "virNodeGetInfo", &run<&node_get_info>, kRead, kHigh},
    {7, "virConnectGetCapabilities", &run<&connect_get_capabilities>, kRead, kLow},
    {8, "virDomainAttachDevice", &run<&domain_attach_device>, kWrite, kLow},
    {9, "virDomainCreate", &run<&domain_create>, kWrite, kLow},
    {10, "virDomainCreateXML", &run<&domain_create_xml>, kWrite, kLow},
    {11, "virDomainDefineXML", &run<&domain_define_xml>, kWrite, kLow},
    {12, "virDomainDestroy", &run<&domain_destroy>, kWrite, kHigh},
    {13, "virDomainDetachDevice", &run<&domain_detach_device>, kWrite, kLow},
    {14, "virDomainGetXMLDesc", &run<&domain_get_xml_desc>, kRead, kLow, Needs::kOpen, VIR_DOMAIN_XML_SECURE},
    {15, "virDomainGetAutostart", &run<&domain_get_autostart>, kRead, kHigh},
    {16, "virDomainGetInfo", &run<&domain_get_info>, kRead, kLow},
    {17, "virDomainGetMaxMemory", &run<&domain_get_max_memory>, kRead, kHigh},
    {18, "virDomainGetMaxVcpus", &run<&domain_get_max_vcpus>, kRead, kHigh},
    {19, "virDomainGetOSType", &run<&domain_get_os_type>, kRead, kHigh},
    {20, "virDomainGetVcpus", &run<&domain_get_vcpus>, kRead, kHigh},
    {21, "virConnectListDefinedDomains", &run<&connect_list_defined_domains>, kRead, kHigh},
    {22, "virDomainLookupByID", &run<&domain_lookup_by_id>, kRead, kHigh},
    {23, "virDomainLookupByName", &run<&domain_lookup_by_name>, kRead, kHigh},
    {24, "virDomainLookupByUUID", &run<&domain_lookup_by_uuid>, kRead, kHigh},
    {25, "virConnectNumOfDefinedDomains", &run<&connect_num_of_defined_domains>, kRead, kHigh},
    {26, "virDomainPinVcpu", &run<&domain_pin_vcpu>, kWrite, kLow},
    {27, "virDomainReboot", &run<&domain_reboot>, kWrite, kLow},
    {28, "virDomainResume", &run<&domain_resume>, kWrite, kLow},
    {29, "virDomainSetAutostart", &run<&domain_set_autostart>, kWrite, kHigh},
    {30, "virDomainSetMaxMemory", &run<&domain_set_max_memory>, kWrite, kHigh},
    {31, "virDomainSetMemory", &run<&domain_set_memory>, kWrite, kLow},
    {32, "virDomainSetVcpus", &run<&domain_set_vcpus>, kWrite, kLow},
    {33, "virDomainShutdown", &run<&domain_shutdown>, kWrite, kLow},
    {34, "virDomainSuspend", &run<&domain_suspend>, kWrite, kLow},
    {35, "virDomainUndefine", &run<&domain_undefine>, kWrite, kHigh},
    {37, "virConnectListDomains", &run<&connect_list_domains>, kRead, kHigh},
    {51, "virConnectNumOfDomains", &run<&connect_num_of_domains>, kRead, kHigh},
    {56, "virDomainGetSchedulerType", &run<&domain_get_scheduler_type>, kRead, kLow},
    {57, "virDomainGetSchedulerParameters", &run<&domain_get_scheduler_parameters>, kRead, kLow},
    {58, "virDomainSetSchedulerParameters", &run<&domain_set_scheduler_parameters>, kWrite, kLow},
    {59, "virConnectGetHostname", &run<&connect_get_hostname>, kRead, kHigh},
    {60, "virConnectSupportsFeature", &run<&connect_supports_feature>, kRead, kInline, Needs::kAuth},
    {64, "virDomainBlockStats", &run<&domain_block_stats>, kRead, kLow},
    {65, "virDomainInterfaceStats", &run<&domain_interface_stats>, kRead, kHigh},
    {66, "virConnectAuthList", &run<&auth_list>, kRead, kInline, Needs::kNothing},
    {70, "virConnectAuthPolkit", &run<&auth_polkit>, kRead, kAuth, Needs::kNothing},
    {101, "virNodeGetCellsFreeMemory", &run<&node_get_cells_free_memory>, kRead, kHigh},
    {102, "virNodeGetFreeMemory", &run<&node_get_free_memory>, kRead, kHigh},
    {105, "virConnectDomainEventRegister", &run<&event_register>, kRead, kInline},
    {106, "virConnectDomainEventDeregister", &run<&event_deregister>, kRead, kInline},
    {110, "virConnectGetURI", &run<&connect_get_uri>, kRead, kInline},
    {121, "virDomainGetSecurityLabel", &run<&domain_get_security_label>, kRead, kHigh},
    {122, "virNodeGetSecurityModel", &run<&node_get_security_model>, kRead, kHigh},
    {135, "virConnectDomainXMLFromNative", &run<&connect_xml_from_native>, kWrite, kLow},
    {136, "virConnectDomainXMLToNative", &run<&connect_xml_to_native>, kWrite, kLow},
    {149, "virConnectIsSecure", &run<&connect_is_secure>, kRead, kInline},
    {150, "virDomainIsActive", &run<&domain_is_active>, kRead, kHigh},
    {151, "virDomainIsPersistent", &run<&domain_is_persistent>, kRead, kHigh},
    {157, "virConnectGetLibVersion", &run<&connect_get_lib_version>, kRead, kInline},
    {159, "virDomainMemoryStats", &run<&domain_memory_stats>, kRead, kLow},
    {160, "virDomainAttachDeviceFlags", &run<&domain_attach_device_flags>, kWrite, kLow},
    {161, "virDomainDetachDeviceFlags", &run<&domain_detach_device_flags>, kWrite, kLow},
    {163, "virDomainGetJobInfo", &run<&domain_get_job_info>, kRead, kLow},
    {167, "virConnectDomainEventRegisterAny", &run<&event_register_any>, kRead, kInline},
    {168, "virConnectDomainEventDeregisterAny", &run<&event_deregister_any>, kRead, kInline},
    {174, "virDomainUpdateDeviceFlags", &run<&domain_update_device_flags>, kWrite, kLow},
    {183, "virDomainHasManagedSaveImage", &run<&domain_has_managed_save_image>, kRead, kLow},
    {187, "virDomainSnapshotNum", &run<&domain_snapshot_num>, kRead, kHigh},
    {196, "virDomainCreateWithFlags", &run<&domain_create_with_flags>, kWrite, kLow},
    {197, "virDomainSetMemoryParameters", &run<&domain_set_memory_parameters>, kWrite, kLow},
    {198, "virDomainGetMemoryParameters", &run<&domain_get_memory_parameters>, kRead, kLow},
    {199, "virDomainSetVcpusFlags", &run<&domain_set_vcpus_flags>, kWrite, kLow},
    {200, "virDomainGetVcpusFlags", &run<&domain_get_vcpus_flags>, kRead, kLow, Needs::kOpen, VIR_DOMAIN_VCPU_GUEST},
    {201, "virDomainOpenConsole", &run<&domain_open_console>, kWrite, kLow},
    {202, "virDomainIsUpdated", &run<&domain_is_updated>, kRead, kHigh},
    {203, "virConnectGetSysinfo", &run<&connect_get_sysinfo>, kRead, kHigh},
    {204, "virDomainSetMemoryFlags", &run<&domain_set_memory_flags>, kWrite, kLow},
    {205, "virDomainSetBlkioParameters", &run<&domain_set_blkio_parameters>, kWrite, kLow},
    {206, "virDomainGetBlkioParameters", &run<&domain_get_blkio_parameters>, kRead, kLow},
    {212, "virDomainGetState", &run<&domain_get_state>, kRead, kHigh},
    {219, "virDomainSetSchedulerParametersFlags", &run<&domain_set_scheduler_parameters_flags>, kWrite, kLow},
    {223, "virDomainGetSchedulerParametersFlags", &run<&domain_get_scheduler_parameters_flags>, kRead, kLow},
    {225, "virDomainPinVcpuFlags", &run<&domain_pin_vcpu_flags>, kWrite, kLow},
    {227, "virNodeGetCPUStats", &run<&node_get_cpu_stats>, kRead, kHigh},
    {228, "virNodeGetMemoryStats", &run<&node_get_memory_stats>, kRead, kHigh},
    {229, "virDomainGetControlInfo", &run<&domain_get_control_info>, kRead, kHigh},
    {230, "virDomainGetVcpuPinInfo", &run<&domain_get_vcpu_pin_info>, kRead, kLow},
    {231, "virDomainUndefineFlags", &run<&domain_undefine_flags>, kWrite, kHigh},
    {234, "virDomainDestroyFlags", &run<&domain_destroy_flags>, kWrite, kHigh},
    {243, "virDomainBlockStatsFlags", &run<&domain_block_stats_flags>, kRead, kLow},
    {245, "virDomainReset", &run<&domain_reset>, kWrite, kLow},
    {258, "virDomainShutdownFlags", &run<&domain_shutdown_flags>, kWrite, kLow},
    {262, "virDomainGetCPUStats", &run<&domain_get_cpu_stats>, kRead, kLow},
    {264, "virDomainSetMetadata", &run<&domain_set_metadata>, kWrite, kLow},
    {265, "virDomainGetMetadata", &run<&domain_get_metadata>, kRead, kLow},
    {273, "virConnectListAllDomains", &run<&connect_list_all_domains>, kRead, kHigh},
    {277, "virDomainGetHostname", &run<&domain_get_hostname>, kWrite, kLow},
    {293, "virNodeGetCPUMap", &run<&node_get_cpu_map>, kRead, kLow},
    {295, "virDomainSendProcessSignal", &run<&domain_send_process_signal>, kWrite, kLow},
    {309, "virDomainCreateXMLWithFiles", &run<&domain_create_xml_with_files>, kWrite, kLow},
    {310, "virDomainCreateWithFiles", &run<&domain_create_with_files>, kWrite, kLow},
    {316, "virConnectDomainEventRegisterAny", &run<&event_callback_register_any>, kRead, kInline},
    {317, "virConnectDomainEventDeregisterAny", &run<&event_callback_deregister_any>, kRead, kInline},
    {340, "virNodeGetFreePages", &run<&node_get_free_pages>, kRead, kHigh},
    {342, "virConnectGetDomainCapabilities", &run<&connect_get_domain_capabilities>, kWrite, kLow},
    {344, "virConnectGetAllDomainStats", &run<&connect_get_all_domain_stats>, kRead, kLow},
    {350, "virDomainDefineXMLFlags", &run<&domain_define_xml_flags>, kWrite, kLow},
    {353, "virDomainInterfaceAddresses", &run<&domain_interface_addresses>, kRead, kLow, Needs::kOpen, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT},
    {358, "virDomainRename", &run<&domain_rename>, kWrite, kLow},
    {360, "virConnectRegisterCloseCallback", &run<&register_close_callback>, kRead, kInline},
    {361, "virConnectUnregisterCloseCallback", &run<&unregister_close_callback>, kRead, kInline},
    {419, "virConnectSetIdentity", &run<&connect_set_identity>, kRead, kLow},
    {426, "virDomainGetMessages", &run<&domain_get_messages>, kRead, kLow},
    // clang-format on
};

constexpr Row kLxcRows[] = {
    {1, "virDomainLxcOpenNamespace", &run<&lxc_open_namespace>, kWrite, kLow},
};

// Not libvirt's: virt-userns-exec asks it. Answered when the command has started or failed to, and no worker waits for
// its end.
constexpr Row kUsernsRows[] = {
    {kExecProcedure, "virt-userns-exec", &run<&userns_exec>, kWrite, kLow},
};

const std::map<std::int32_t, Row>& remote_rows() {
  static const std::map<std::int32_t, Row> rows = [] {
    std::map<std::int32_t, Row> all;
    for (const Row& row : kRows) all.emplace(row.number, row);
    for (const UnsupportedRow& row : unsupported_rows())
      all.emplace(row.number, Row{row.number, row.name, nullptr, row.access, row.priority});
    return all;
  }();
  return rows;
}

}  // namespace

std::span<const Row> supported_rows() { return kRows; }

bool is_known_program(std::uint32_t program) {
  return program == kRemoteProgram || program == kLxcProgram || program == kUsernsProgram;
}

const Row* find_row(std::uint32_t program, std::int32_t procedure) {
  if (program == kLxcProgram) return procedure == kLxcRows[0].number ? &kLxcRows[0] : nullptr;
  if (program == kUsernsProgram) return procedure == kUsernsRows[0].number ? &kUsernsRows[0] : nullptr;
  const auto& rows = remote_rows();
  const auto found = rows.find(procedure);
  return found == rows.end() ? nullptr : &found->second;
}

}  // namespace virtuserns::rpc
