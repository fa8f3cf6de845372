#include "driver/rpc/table.h"

#include <libvirt/libvirt.h>

#include <algorithm>
#include <map>
#include <type_traits>

#include "driver/rpc/handlers.h"

namespace virtuserns::rpc {
namespace {

constexpr Right kConnect{Object::kConnection, Permission::kGetattr}, kHost{Object::kConnection, Permission::kRead},
    kConvert{Object::kConnection, Permission::kRead}, kSearch{Object::kConnection, Permission::kSearchDomains},
    kDefine{Object::kDefinition, Permission::kSave}, kLook{Object::kDomain, Permission::kRead},
    kSecret{Object::kDomain, Permission::kReadSecure}, kChange{Object::kDomain, Permission::kWrite},
    kDelete{Object::kDomain, Permission::kDelete}, kStart{Object::kDomain, Permission::kStart},
    kStop{Object::kDomain, Permission::kStop}, kReset{Object::kDomain, Permission::kReset},
    kSuspend{Object::kDomain, Permission::kSuspend}, kSignal{Object::kDomain, Permission::kSendSignal},
    kConsole{Object::kDomain, Permission::kOpenDevice}, kExec{Object::kDomain, Permission::kExec},
    kNamespace{Object::kDomain, Permission::kOpenNamespace}, kPassword{Object::kDomain, Permission::kSetPassword},
    kDump{Object::kDomain, Permission::kCoreDump};
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

template <class Args>
consteval bool names_domain() {
  if constexpr (std::is_void_v<Args>)
    return false;
  else
    return requires(const Args& args) { args.dom.uuid; };
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
    if constexpr (names_domain<Args>()) TRY(check_domain(call, args.dom.uuid));
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

void right_and_arguments_differ() {}

// A right on a domain is for arguments that name one, and the other way round: or it does not compile.
template <auto kHandler>
consteval Row row(std::int32_t number, const char* name, Access access, Right right, Priority priority,
                  Needs needs = Needs::kOpen, std::uint32_t write_flags = 0) {
  using Args = typename HandlerTraits<decltype(kHandler)>::Args;
  if ((right.object == Object::kDomain) != names_domain<Args>()) right_and_arguments_differ();
  return {number, name, &run<kHandler>, access, right, priority, needs, write_flags};
}

// Priorities are libvirt's, but for define (11, 350): parsing foreign XML may take long, and must not fill the lane that
// keeps the daemon answering.
constexpr Row kRows[] = {
    // clang-format off
    row<&connect_open>(1, "virConnectOpen", kRead, kConnect, kHigh, Needs::kAuth),
    row<&connect_close>(2, "virConnectClose", kRead, kConnect, kInline, Needs::kNothing),
    row<&connect_get_type>(3, "virConnectGetType", kRead, kConnect, kHigh),
    row<&connect_get_version>(4, "virConnectGetVersion", kRead, kConnect, kHigh),
    row<&connect_get_max_vcpus>(5, "virConnectGetMaxVcpus", kRead, kHost, kHigh),
    row<&node_get_info>(6, "virNodeGetInfo", kRead, kHost, kHigh),
    row<&connect_get_capabilities>(7, "virConnectGetCapabilities", kRead, kHost, kLow),
    row<&domain_attach_device>(8, "virDomainAttachDevice", kWrite, kChange, kLow),
    row<&domain_create>(9, "virDomainCreate", kWrite, kStart, kLow),
    row<&domain_create_xml>(10, "virDomainCreateXML", kWrite, kDefine, kLow),
    row<&domain_define_xml>(11, "virDomainDefineXML", kWrite, kDefine, kLow),
    row<&domain_destroy>(12, "virDomainDestroy", kWrite, kStop, kHigh),
    row<&domain_detach_device>(13, "virDomainDetachDevice", kWrite, kChange, kLow),
    row<&domain_get_xml_desc>(14, "virDomainGetXMLDesc", kRead, kSecret, kLow, Needs::kOpen, VIR_DOMAIN_XML_SECURE),
    row<&domain_get_autostart>(15, "virDomainGetAutostart", kRead, kLook, kHigh),
    row<&domain_get_info>(16, "virDomainGetInfo", kRead, kLook, kLow),
    row<&domain_get_max_memory>(17, "virDomainGetMaxMemory", kRead, kLook, kHigh),
    row<&domain_get_max_vcpus>(18, "virDomainGetMaxVcpus", kRead, kLook, kHigh),
    row<&domain_get_os_type>(19, "virDomainGetOSType", kRead, kLook, kHigh),
    row<&domain_get_vcpus>(20, "virDomainGetVcpus", kRead, kLook, kHigh),
    row<&connect_list_defined_domains>(21, "virConnectListDefinedDomains", kRead, kSearch, kHigh),
    row<&domain_lookup_by_id>(22, "virDomainLookupByID", kRead, kSearch, kHigh),
    row<&domain_lookup_by_name>(23, "virDomainLookupByName", kRead, kSearch, kHigh),
    row<&domain_lookup_by_uuid>(24, "virDomainLookupByUUID", kRead, kSearch, kHigh),
    row<&connect_num_of_defined_domains>(25, "virConnectNumOfDefinedDomains", kRead, kSearch, kHigh),
    row<&domain_pin_vcpu>(26, "virDomainPinVcpu", kWrite, kChange, kLow),
    row<&domain_reboot>(27, "virDomainReboot", kWrite, kReset, kLow),
    row<&domain_resume>(28, "virDomainResume", kWrite, kSuspend, kLow),
    row<&domain_set_autostart>(29, "virDomainSetAutostart", kWrite, kChange, kHigh),
    row<&domain_set_max_memory>(30, "virDomainSetMaxMemory", kWrite, kChange, kHigh),
    row<&domain_set_memory>(31, "virDomainSetMemory", kWrite, kChange, kLow),
    row<&domain_set_vcpus>(32, "virDomainSetVcpus", kWrite, kChange, kLow),
    row<&domain_shutdown>(33, "virDomainShutdown", kWrite, kStop, kLow),
    row<&domain_suspend>(34, "virDomainSuspend", kWrite, kSuspend, kLow),
    row<&domain_undefine>(35, "virDomainUndefine", kWrite, kDelete, kHigh),
    row<&connect_list_domains>(37, "virConnectListDomains", kRead, kSearch, kHigh),
    row<&connect_num_of_domains>(51, "virConnectNumOfDomains", kRead, kSearch, kHigh),
    row<&domain_core_dump>(53, "virDomainCoreDump", kWrite, kDump, kLow),
    row<&domain_get_scheduler_type>(56, "virDomainGetSchedulerType", kRead, kLook, kLow),
    row<&domain_get_scheduler_parameters>(57, "virDomainGetSchedulerParameters", kRead, kLook, kLow),
    row<&domain_set_scheduler_parameters>(58, "virDomainSetSchedulerParameters", kWrite, kChange, kLow),
    row<&connect_get_hostname>(59, "virConnectGetHostname", kRead, kConnect, kHigh),
    row<&connect_supports_feature>(60, "virConnectSupportsFeature", kRead, kConnect, kInline, Needs::kAuth),
    row<&domain_block_stats>(64, "virDomainBlockStats", kRead, kLook, kLow),
    row<&domain_interface_stats>(65, "virDomainInterfaceStats", kRead, kLook, kHigh),
    row<&auth_list>(66, "virConnectAuthList", kRead, kConnect, kInline, Needs::kNothing),
    row<&auth_polkit>(70, "virConnectAuthPolkit", kRead, kConnect, kAuth, Needs::kNothing),
    row<&node_get_cells_free_memory>(101, "virNodeGetCellsFreeMemory", kRead, kHost, kHigh),
    row<&node_get_free_memory>(102, "virNodeGetFreeMemory", kRead, kHost, kHigh),
    row<&event_register>(105, "virConnectDomainEventRegister", kRead, kSearch, kInline),
    row<&event_deregister>(106, "virConnectDomainEventDeregister", kRead, kSearch, kInline),
    row<&connect_get_uri>(110, "virConnectGetURI", kRead, kConnect, kInline),
    row<&domain_get_security_label>(121, "virDomainGetSecurityLabel", kRead, kLook, kHigh),
    row<&node_get_security_model>(122, "virNodeGetSecurityModel", kRead, kHost, kHigh),
    row<&connect_xml_from_native>(135, "virConnectDomainXMLFromNative", kWrite, kConvert, kLow),
    row<&connect_xml_to_native>(136, "virConnectDomainXMLToNative", kWrite, kConvert, kLow),
    row<&connect_is_secure>(149, "virConnectIsSecure", kRead, kConnect, kInline),
    row<&domain_is_active>(150, "virDomainIsActive", kRead, kLook, kHigh),
    row<&domain_is_persistent>(151, "virDomainIsPersistent", kRead, kLook, kHigh),
    row<&connect_get_lib_version>(157, "virConnectGetLibVersion", kRead, kConnect, kInline),
    row<&domain_memory_stats>(159, "virDomainMemoryStats", kRead, kLook, kLow),
    row<&domain_attach_device_flags>(160, "virDomainAttachDeviceFlags", kWrite, kChange, kLow),
    row<&domain_detach_device_flags>(161, "virDomainDetachDeviceFlags", kWrite, kChange, kLow),
    row<&domain_get_job_info>(163, "virDomainGetJobInfo", kRead, kLook, kLow),
    row<&event_register_any>(167, "virConnectDomainEventRegisterAny", kRead, kSearch, kInline),
    row<&event_deregister_any>(168, "virConnectDomainEventDeregisterAny", kRead, kSearch, kInline),
    row<&domain_update_device_flags>(174, "virDomainUpdateDeviceFlags", kWrite, kChange, kLow),
    row<&domain_has_managed_save_image>(183, "virDomainHasManagedSaveImage", kRead, kLook, kLow),
    row<&domain_snapshot_num>(187, "virDomainSnapshotNum", kRead, kLook, kHigh),
    row<&domain_create_with_flags>(196, "virDomainCreateWithFlags", kWrite, kStart, kLow),
    row<&domain_set_memory_parameters>(197, "virDomainSetMemoryParameters", kWrite, kChange, kLow),
    row<&domain_get_memory_parameters>(198, "virDomainGetMemoryParameters", kRead, kLook, kLow),
    row<&domain_set_vcpus_flags>(199, "virDomainSetVcpusFlags", kWrite, kChange, kLow),
    row<&domain_get_vcpus_flags>(200, "virDomainGetVcpusFlags", kRead, kLook, kLow, Needs::kOpen, VIR_DOMAIN_VCPU_GUEST),
    row<&domain_open_console>(201, "virDomainOpenConsole", kWrite, kConsole, kLow),
    row<&domain_is_updated>(202, "virDomainIsUpdated", kRead, kLook, kHigh),
    row<&connect_get_sysinfo>(203, "virConnectGetSysinfo", kRead, kHost, kHigh),
    row<&domain_set_memory_flags>(204, "virDomainSetMemoryFlags", kWrite, kChange, kLow),
    row<&domain_set_blkio_parameters>(205, "virDomainSetBlkioParameters", kWrite, kChange, kLow),
    row<&domain_get_blkio_parameters>(206, "virDomainGetBlkioParameters", kRead, kLook, kLow),
    row<&domain_get_state>(212, "virDomainGetState", kRead, kLook, kHigh),
    row<&domain_set_scheduler_parameters_flags>(219, "virDomainSetSchedulerParametersFlags", kWrite, kChange, kLow),
    row<&domain_get_scheduler_parameters_flags>(223, "virDomainGetSchedulerParametersFlags", kRead, kLook, kLow),
    row<&domain_pin_vcpu_flags>(225, "virDomainPinVcpuFlags", kWrite, kChange, kLow),
    row<&node_get_cpu_stats>(227, "virNodeGetCPUStats", kRead, kHost, kHigh),
    row<&node_get_memory_stats>(228, "virNodeGetMemoryStats", kRead, kHost, kHigh),
    row<&domain_get_control_info>(229, "virDomainGetControlInfo", kRead, kLook, kHigh),
    row<&domain_get_vcpu_pin_info>(230, "virDomainGetVcpuPinInfo", kRead, kLook, kLow),
    row<&domain_undefine_flags>(231, "virDomainUndefineFlags", kWrite, kDelete, kHigh),
    row<&domain_destroy_flags>(234, "virDomainDestroyFlags", kWrite, kStop, kHigh),
    row<&domain_block_stats_flags>(243, "virDomainBlockStatsFlags", kRead, kLook, kLow),
    row<&domain_reset>(245, "virDomainReset", kWrite, kReset, kLow),
    row<&domain_shutdown_flags>(258, "virDomainShutdownFlags", kWrite, kStop, kLow),
    row<&domain_get_cpu_stats>(262, "virDomainGetCPUStats", kRead, kLook, kLow),
    row<&domain_set_metadata>(264, "virDomainSetMetadata", kWrite, kChange, kLow),
    row<&domain_get_metadata>(265, "virDomainGetMetadata", kRead, kLook, kLow),
    row<&connect_list_all_domains>(273, "virConnectListAllDomains", kRead, kSearch, kHigh),
    row<&domain_get_hostname>(277, "virDomainGetHostname", kWrite, kLook, kLow),
    row<&node_get_cpu_map>(293, "virNodeGetCPUMap", kRead, kHost, kLow),
    row<&domain_send_process_signal>(295, "virDomainSendProcessSignal", kWrite, kSignal, kLow),
    row<&domain_create_xml_with_files>(309, "virDomainCreateXMLWithFiles", kWrite, kDefine, kLow),
    row<&domain_create_with_files>(310, "virDomainCreateWithFiles", kWrite, kStart, kLow),
    row<&event_callback_register_any>(316, "virConnectDomainEventRegisterAny", kRead, kSearch, kInline),
    row<&event_callback_deregister_any>(317, "virConnectDomainEventDeregisterAny", kRead, kSearch, kInline),
    row<&node_get_free_pages>(340, "virNodeGetFreePages", kRead, kHost, kHigh),
    row<&connect_get_domain_capabilities>(342, "virConnectGetDomainCapabilities", kWrite, kHost, kLow),
    row<&connect_get_all_domain_stats>(344, "virConnectGetAllDomainStats", kRead, kSearch, kLow),
    row<&domain_define_xml_flags>(350, "virDomainDefineXMLFlags", kWrite, kDefine, kLow),
    row<&domain_interface_addresses>(353, "virDomainInterfaceAddresses", kRead, kLook, kLow, Needs::kOpen, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT),
    row<&domain_set_user_password>(357, "virDomainSetUserPassword", kWrite, kPassword, kLow),
    row<&domain_rename>(358, "virDomainRename", kWrite, kChange, kLow),
    row<&register_close_callback>(360, "virConnectRegisterCloseCallback", kRead, kConnect, kInline),
    row<&unregister_close_callback>(361, "virConnectUnregisterCloseCallback", kRead, kConnect, kInline),
    row<&connect_set_identity>(419, "virConnectSetIdentity", kRead, kConnect, kLow),
    row<&domain_get_messages>(426, "virDomainGetMessages", kRead, kLook, kLow),
    // clang-format on
};

constexpr Row kLxcRows[] = {
    row<&lxc_open_namespace>(1, "virDomainLxcOpenNamespace", kWrite, kNamespace, kLow),
};

// Not libvirt's: virt-userns-exec asks it. Answered when the command has started or failed to, and no worker waits for
// its end.
constexpr Row kUsernsRows[] = {
    row<&userns_exec>(kExecProcedure, "virt-userns-exec", kWrite, kExec, kLow),
};

const std::map<std::int32_t, Row>& remote_rows() {
  static const std::map<std::int32_t, Row> rows = [] {
    std::map<std::int32_t, Row> all;
    for (const Row& row : kRows) all.emplace(row.number, row);
    for (const UnsupportedRow& row : unsupported_rows())
      all.emplace(row.number, Row{row.number, row.name, nullptr, row.access, {}, row.priority});
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
