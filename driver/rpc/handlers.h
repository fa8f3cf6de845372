// The handlers, by family (handlers_<family>.cpp). Each turns arguments into a Driver call, and its answer into a
// reply.
#pragma once

#include "driver/rpc/call.h"
#include "driver/rpc/protocol.h"

namespace virtuserns::rpc {

// connect
Result<void> connect_open(Call&, const wire::OpenArgs&);
Result<void> connect_close(Call&);
Result<wire::AuthListReply> auth_list(Call&);
Result<wire::IntReply> auth_polkit(Call&);
Result<wire::IntReply> connect_supports_feature(Call&, const wire::IntArgs&);
Result<wire::TextReply> connect_get_type(Call&);
Result<wire::U64Reply> connect_get_version(Call&);
Result<wire::U64Reply> connect_get_lib_version(Call&);
Result<wire::IntReply> connect_get_max_vcpus(Call&, const wire::MaybeTextArgs&);
Result<wire::TextReply> connect_get_hostname(Call&);
Result<wire::TextReply> connect_get_uri(Call&);
Result<wire::IntReply> connect_is_secure(Call&);
Result<wire::TextReply> connect_get_capabilities(Call&);
Result<wire::TextReply> connect_get_domain_capabilities(Call&, const wire::DomainCapabilitiesArgs&);
Result<wire::TextReply> connect_get_sysinfo(Call&, const wire::FlagsArgs&);
Result<wire::TextReply> connect_xml_from_native(Call&, const wire::NativeArgs&);
Result<wire::TextReply> connect_xml_to_native(Call&, const wire::NativeArgs&);
Result<void> connect_set_identity(Call&, const wire::IdentityArgs&);
Result<void> register_close_callback(Call&);
Result<void> unregister_close_callback(Call&);

// event
Result<wire::IntReply> event_register(Call&);
Result<wire::IntReply> event_deregister(Call&);
Result<void> event_register_any(Call&, const wire::IntArgs&);
Result<void> event_deregister_any(Call&, const wire::IntArgs&);
Result<wire::IntReply> event_callback_register_any(Call&, const wire::EventRegisterArgs&);
Result<void> event_callback_deregister_any(Call&, const wire::IntArgs&);

// node
Result<wire::NodeInfoReply> node_get_info(Call&);
Result<wire::U64ListReply> node_get_cells_free_memory(Call&, const wire::CellsArgs&);
Result<wire::U64Reply> node_get_free_memory(Call&);
Result<wire::SecurityModelReply> node_get_security_model(Call&);
Result<wire::NodeStatsReply> node_get_cpu_stats(Call&, const wire::NodeStatsArgs&);
Result<wire::NodeStatsReply> node_get_memory_stats(Call&, const wire::NodeStatsArgs&);
Result<wire::CpuMapReply> node_get_cpu_map(Call&, const wire::CpuMapArgs&);
Result<wire::U64ListReply> node_get_free_pages(Call&, const wire::FreePagesArgs&);

// list
Result<wire::IntReply> connect_num_of_domains(Call&);
Result<wire::IntReply> connect_num_of_defined_domains(Call&);
Result<wire::IdsReply> connect_list_domains(Call&, const wire::IntArgs&);
Result<wire::NamesReply> connect_list_defined_domains(Call&, const wire::IntArgs&);
Result<wire::ListAllReply> connect_list_all_domains(Call&, const wire::ListAllArgs&);
Result<wire::DomainReply> domain_lookup_by_id(Call&, const wire::LookupIdArgs&);
Result<wire::DomainReply> domain_lookup_by_name(Call&, const wire::LookupNameArgs&);
Result<wire::DomainReply> domain_lookup_by_uuid(Call&, const wire::LookupUuidArgs&);
Result<wire::AllStatsReply> connect_get_all_domain_stats(Call&, const wire::AllStatsArgs&);

// domain: definitions and lifecycle
Result<wire::DomainReply> domain_define_xml(Call&, const wire::XmlArgs&);
Result<wire::DomainReply> domain_define_xml_flags(Call&, const wire::XmlFlagsArgs&);
Result<void> domain_undefine(Call&, const wire::DomainArgs&);
Result<void> domain_undefine_flags(Call&, const wire::DomainFlagsArgs&);
Result<wire::TextReply> domain_get_xml_desc(Call&, const wire::DomainFlagsArgs&);
Result<wire::TextReply> domain_get_os_type(Call&, const wire::DomainArgs&);
Result<wire::IntReply> domain_rename(Call&, const wire::RenameArgs&);
Result<wire::IntReply> domain_get_autostart(Call&, const wire::DomainArgs&);
Result<void> domain_set_autostart(Call&, const wire::DomainCountArgs&);
Result<wire::IntReply> domain_is_active(Call&, const wire::DomainArgs&);
Result<wire::IntReply> domain_is_persistent(Call&, const wire::DomainArgs&);
Result<wire::IntReply> domain_is_updated(Call&, const wire::DomainArgs&);
Result<wire::IntReply> domain_has_managed_save_image(Call&, const wire::DomainFlagsArgs&);
Result<wire::IntReply> domain_snapshot_num(Call&, const wire::DomainFlagsArgs&);
Result<wire::TextReply> domain_get_metadata(Call&, const wire::GetMetadataArgs&);
Result<void> domain_set_metadata(Call&, const wire::SetMetadataArgs&);
Result<void> domain_create(Call&, const wire::DomainArgs&);
Result<wire::DomainReply> domain_create_with_flags(Call&, const wire::DomainFlagsArgs&);
Result<wire::DomainReply> domain_create_with_files(Call&, const wire::DomainFlagsArgs&);
Result<wire::DomainReply> domain_create_xml(Call&, const wire::XmlFlagsArgs&);
Result<wire::DomainReply> domain_create_xml_with_files(Call&, const wire::XmlFlagsArgs&);
Result<void> domain_shutdown(Call&, const wire::DomainArgs&);
Result<void> domain_shutdown_flags(Call&, const wire::DomainFlagsArgs&);
Result<void> domain_reboot(Call&, const wire::DomainFlagsArgs&);
Result<void> domain_reset(Call&, const wire::DomainFlagsArgs&);
Result<void> domain_destroy(Call&, const wire::DomainArgs&);
Result<void> domain_destroy_flags(Call&, const wire::DomainFlagsArgs&);
Result<void> domain_suspend(Call&, const wire::DomainArgs&);
Result<void> domain_resume(Call&, const wire::DomainArgs&);
Result<void> domain_send_process_signal(Call&, const wire::SignalArgs&);
Result<void> domain_set_user_password(Call&, const wire::SetUserPasswordArgs&);
Result<void> domain_core_dump(Call&, const wire::CoreDumpArgs&);

// watch
Result<wire::InfoReply> domain_get_info(Call&, const wire::DomainArgs&);
Result<wire::StateReply> domain_get_state(Call&, const wire::DomainFlagsArgs&);
Result<wire::ControlInfoReply> domain_get_control_info(Call&, const wire::DomainFlagsArgs&);
Result<wire::JobInfoReply> domain_get_job_info(Call&, const wire::DomainArgs&);
Result<wire::VcpusReply> domain_get_vcpus(Call&, const wire::VcpusArgs&);
Result<wire::PinInfoReply> domain_get_vcpu_pin_info(Call&, const wire::PinInfoArgs&);
Result<wire::IntReply> domain_get_max_vcpus(Call&, const wire::DomainArgs&);
Result<wire::IntReply> domain_get_vcpus_flags(Call&, const wire::DomainFlagsArgs&);
Result<wire::MemoryStatsReply> domain_memory_stats(Call&, const wire::MemoryStatsArgs&);
Result<wire::BlockStatsReply> domain_block_stats(Call&, const wire::DomainNameArgs&);
Result<wire::ParamsCountReply> domain_block_stats_flags(Call&, const wire::BlockStatsFlagsArgs&);
Result<wire::InterfaceStatsReply> domain_interface_stats(Call&, const wire::DomainNameArgs&);
Result<wire::AddressesReply> domain_interface_addresses(Call&, const wire::AddressesArgs&);
Result<wire::ParamsCountReply> domain_get_cpu_stats(Call&, const wire::CpuStatsArgs&);
Result<wire::TextReply> domain_get_hostname(Call&, const wire::DomainFlagsArgs&);
Result<wire::MessagesReply> domain_get_messages(Call&, const wire::DomainFlagsArgs&);
Result<wire::SecurityLabelReply> domain_get_security_label(Call&, const wire::DomainArgs&);

// tune
Result<wire::U64Reply> domain_get_max_memory(Call&, const wire::DomainArgs&);
Result<void> domain_set_max_memory(Call&, const wire::DomainMemoryArgs&);
Result<void> domain_set_memory(Call&, const wire::DomainMemoryArgs&);
Result<void> domain_set_memory_flags(Call&, const wire::DomainMemoryFlagsArgs&);
Result<wire::ParamsCountReply> domain_get_memory_parameters(Call&, const wire::DomainCountFlagsArgs&);
Result<void> domain_set_memory_parameters(Call&, const wire::DomainParamsFlagsArgs&);
Result<wire::SchedulerTypeReply> domain_get_scheduler_type(Call&, const wire::DomainArgs&);
Result<wire::ParamsReply> domain_get_scheduler_parameters(Call&, const wire::DomainCountArgs&);
Result<wire::ParamsReply> domain_get_scheduler_parameters_flags(Call&, const wire::DomainCountFlagsArgs&);
Result<void> domain_set_scheduler_parameters(Call&, const wire::DomainParamsArgs&);
Result<void> domain_set_scheduler_parameters_flags(Call&, const wire::DomainParamsFlagsArgs&);
Result<wire::ParamsCountReply> domain_get_blkio_parameters(Call&, const wire::DomainCountFlagsArgs&);
Result<void> domain_set_blkio_parameters(Call&, const wire::DomainParamsFlagsArgs&);
Result<void> domain_set_vcpus(Call&, const wire::DomainVcpusArgs&);
Result<void> domain_set_vcpus_flags(Call&, const wire::DomainVcpusFlagsArgs&);
Result<void> domain_pin_vcpu(Call&, const wire::PinArgs&);
Result<void> domain_pin_vcpu_flags(Call&, const wire::PinFlagsArgs&);

// devices
Result<void> domain_attach_device(Call&, const wire::DomainXmlArgs&);
Result<void> domain_attach_device_flags(Call&, const wire::DomainXmlFlagsArgs&);
Result<void> domain_detach_device(Call&, const wire::DomainXmlArgs&);
Result<void> domain_detach_device_flags(Call&, const wire::DomainXmlFlagsArgs&);
Result<void> domain_update_device_flags(Call&, const wire::DomainXmlFlagsArgs&);
Result<void> domain_open_console(Call&, const wire::OpenConsoleArgs&);
Result<void> lxc_open_namespace(Call&, const wire::DomainFlagsArgs&);

// our own program
Result<wire::ExecReply> userns_exec(Call&, const wire::ExecArgs&);

}  // namespace virtuserns::rpc
