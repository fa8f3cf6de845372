// What travels in libvirt's remote protocol: program numbers, event messages, and one line per argument or reply.
//
// The order and type of the fields is the wire (conf/base/xdr.h). A domain is a DomainRef, a typed parameter a
// TypedParam: both have the wire's shape already. Optional fields are std::optional.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/xdr.h"
#include "conf/exec.h"
#include "conf/typed_param.h"
#include "driver/events.h"

namespace virtuserns {
template <>
struct xdr::VariantBase<TypedValue> {
  static constexpr std::int32_t kValue = 1;
};  // VIR_TYPED_PARAM_INT
}  // namespace virtuserns

namespace virtuserns::rpc {

inline constexpr std::uint32_t kRemoteProgram = 0x20008086, kQemuProgram = 0x20008087, kLxcProgram = 0x00068000;
inline constexpr std::uint32_t kUsernsProgram = 0x75736e73;  // ours, beside libvirt's; version 1
inline constexpr std::int32_t kExecProcedure = 1;
inline constexpr std::uint32_t kKeepaliveProgram = 0x6b656570;
inline constexpr std::uint32_t kProgramVersion = 1;
inline constexpr std::int32_t kKeepalivePing = 1, kKeepalivePong = 2;
inline constexpr std::int32_t kConnectionClosedEvent = 362;

namespace wire {

using i32 = std::int32_t;
using u32 = std::uint32_t;
using i64 = std::int64_t;
using u64 = std::uint64_t;
using Name = std::string;
using MaybeText = std::optional<std::string>;
using Bytes = std::vector<std::uint8_t>;
template <std::size_t N>
using Params = xdr::List<TypedParam, N>;
using CpuMap = xdr::List<std::uint8_t, 2048>;

inline constexpr std::size_t kMaxDomains = 16384, kMaxVcpus = 16384, kMaxCpuMapsBytes = 8388608, kMaxTuneParams = 16;

// clang-format off: one line per struct
// ---- shapes that many procedures share ----
struct DomainArgs {
  DomainRef dom;
};
struct DomainFlagsArgs {
  DomainRef dom;
  u32 flags = 0;
};
struct DomainXmlArgs {
  DomainRef dom;
  Name xml;
};
struct DomainXmlFlagsArgs {
  DomainRef dom;
  Name xml;
  u32 flags = 0;
};
struct DomainNameArgs {
  DomainRef dom;
  Name name;
};
struct DomainMemoryArgs {
  DomainRef dom;
  u64 memory_kib = 0;
};
struct DomainMemoryFlagsArgs {
  DomainRef dom;
  u64 memory_kib = 0;
  u32 flags = 0;
};
struct DomainParamsArgs {
  DomainRef dom;
  Params<kMaxTuneParams> params;
};
struct DomainParamsFlagsArgs {
  DomainRef dom;
  Params<kMaxTuneParams> params;
  u32 flags = 0;
};
struct DomainCountArgs {
  DomainRef dom;
  i32 count = 0;
};
struct DomainCountFlagsArgs {
  DomainRef dom;
  i32 count = 0;
  u32 flags = 0;
};
struct DomainVcpusArgs {
  DomainRef dom;
  u32 vcpus = 0;
};
struct DomainVcpusFlagsArgs {
  DomainRef dom;
  u32 vcpus = 0;
  u32 flags = 0;
};
struct XmlArgs {
  Name xml;
};
struct XmlFlagsArgs {
  Name xml;
  u32 flags = 0;
};
struct IntArgs {
  i32 value = 0;
};
struct FlagsArgs {
  u32 flags = 0;
};
struct IntReply {
  i32 value = 0;
};
struct U64Reply {
  u64 value = 0;
};
struct TextReply {
  std::string text;
};
struct DomainReply {
  DomainRef dom;
};
struct ParamsReply {
  TypedParams params;
};
struct ParamsCountReply {
  TypedParams params;
  i32 count = 0;
};
struct NamesReply {
  std::vector<std::string> names;
};

// ---- connect ----
struct OpenArgs {
  MaybeText name;
  u32 flags = 0;
};
struct ExecArgs {  // of our own program
  DomainRef dom;
  ExecDef command;
};
struct ExecReply {  // with descriptors when status is 0
  i32 status = 0;
  Name text;
};
struct MaybeTextArgs {
  MaybeText text;
};
struct AuthListReply {
  std::vector<i32> types;
};
struct NativeArgs {
  Name format, text;
  u32 flags = 0;
};
struct DomainCapabilitiesArgs {
  MaybeText emulator, arch, machine, virt_type;
  u32 flags = 0;
};
struct IdentityArgs {
  Params<20> params;
  u32 flags = 0;
};

// ---- node ----
struct NodeInfoReply {
  xdr::CharArray<32> model;
  u64 memory_kib = 0;
  i32 cpus = 0, mhz = 0, nodes = 0, sockets = 0, cores = 0, threads = 0;
};
struct CellsArgs {
  i32 start = 0, max = 0;
};
struct U64ListReply {
  std::vector<u64> values;
};
struct SecurityModelReply {
  std::vector<i32> model, doi;
};  // a char array is an array of ints on this wire
struct CpuMapArgs {
  i32 need_map = 0, need_online = 0;
  u32 flags = 0;
};
struct CpuMapReply {
  Bytes map;
  u32 online = 0;
  i32 cpus = 0;
};
struct NodeStatsArgs {
  i32 first = 0, second = 0;
  u32 flags = 0;
};
struct NodeStatReply {
  std::string field;
  u64 value = 0;
};
struct NodeStatsReply {
  std::vector<NodeStatReply> stats;
  i32 count = 0;
};
struct FreePagesArgs {
  xdr::List<u32, 1024> page_sizes_kib;
  i32 start_cell = 0;
  u32 cells = 0, flags = 0;
};

// ---- finding domains ----
struct LookupIdArgs {
  i32 id = 0;
};
struct LookupNameArgs {
  Name name;
};
struct LookupUuidArgs {
  Uuid uuid;
};
struct IdsReply {
  std::vector<i32> ids;
};
struct ListAllArgs {
  i32 need_results = 0;
  u32 flags = 0;
};
struct ListAllReply {
  std::vector<DomainRef> domains;
  u32 count = 0;
};

// ---- domain ----
struct InfoReply {
  u32 state = 0;
  u64 max_memory_kib = 0, memory_kib = 0;
  u32 vcpus = 0;
  u64 cpu_time_ns = 0;
};
struct StateReply {
  i32 state = 0, reason = 0;
};
struct ControlInfoReply {
  u32 state = 0, details = 0;
  u64 state_time_ms = 0;
};
struct JobInfoReply {
  i32 type = 0;
  u64 elapsed = 0, remaining = 0, data_total = 0, data_processed = 0, data_remaining = 0, memory_total = 0,
      memory_processed = 0, memory_remaining = 0, file_total = 0, file_processed = 0, file_remaining = 0;
};
struct SignalArgs {
  DomainRef dom;
  i64 pid = 0;
  u32 signal = 0, flags = 0;
};
struct CoreDumpArgs {
  DomainRef dom;
  std::string to;
  u32 flags = 0;
};
struct SetUserPasswordArgs {
  DomainRef dom;
  MaybeText user, password;
  u32 flags = 0;
};
struct RenameArgs {
  DomainRef dom;
  MaybeText new_name;
  u32 flags = 0;
};
struct SetMetadataArgs {
  DomainRef dom;
  i32 type = 0;
  MaybeText text, key, uri;
  u32 flags = 0;
};
struct GetMetadataArgs {
  DomainRef dom;
  i32 type = 0;
  MaybeText uri;
  u32 flags = 0;
};
struct SecurityLabelReply {
  std::vector<i32> label;
  i32 enforcing = 0;
};
struct OpenConsoleArgs {
  DomainRef dom;
  MaybeText device;
  u32 flags = 0;
};
struct MessagesReply {
  std::vector<std::string> messages;
};

// ---- statistics and tuning ----
struct VcpusArgs {
  DomainRef dom;
  i32 max_info = 0, map_bytes = 0;
};
struct VcpuReply {
  u32 number = 0;
  i32 state = 0;
  u64 cpu_time_ns = 0;
  i32 cpu = 0;
};
struct VcpusReply {
  std::vector<VcpuReply> vcpus;
  Bytes maps;
};
struct PinInfoArgs {
  DomainRef dom;
  i32 maps = 0, map_bytes = 0;
  u32 flags = 0;
};
struct PinInfoReply {
  Bytes maps;
  i32 count = 0;
};
struct PinArgs {
  DomainRef dom;
  u32 vcpu = 0;
  CpuMap map;
};
struct PinFlagsArgs {
  DomainRef dom;
  u32 vcpu = 0;
  CpuMap map;
  u32 flags = 0;
};
struct SchedulerTypeReply {
  std::string type;
  i32 count = 0;
};
struct BlockStatsReply {
  i64 read_requests = -1, read_bytes = -1, write_requests = -1, write_bytes = -1, errors = -1;
};
struct BlockStatsFlagsArgs {
  DomainRef dom;
  Name path;
  i32 count = 0;
  u32 flags = 0;
};
struct InterfaceStatsReply {
  i64 rx_bytes = -1, rx_packets = -1, rx_errors = -1, rx_dropped = -1, tx_bytes = -1, tx_packets = -1, tx_errors = -1,
      tx_dropped = -1;
};
struct MemoryStatsArgs {
  DomainRef dom;
  u32 max = 0, flags = 0;
};
struct MemoryStatReply {
  i32 tag = 0;
  u64 value = 0;
};
struct MemoryStatsReply {
  std::vector<MemoryStatReply> stats;
};
struct CpuStatsArgs {
  DomainRef dom;
  u32 params = 0;
  i32 start_cpu = 0;
  u32 cpus = 0, flags = 0;
};
struct AllStatsArgs {
  xdr::List<DomainRef, kMaxDomains> domains;
  u32 stats = 0, flags = 0;
};
struct StatsRecord {
  DomainRef dom;
  TypedParams params;
};
struct AllStatsReply {
  std::vector<StatsRecord> records;
};
struct AddressesArgs {
  DomainRef dom;
  u32 source = 0, flags = 0;
};
struct AddressReply {
  i32 type = 0;
  std::string address;
  u32 prefix = 0;
};
struct InterfaceReply {
  std::string name;
  MaybeText hardware_address;
  std::vector<AddressReply> addresses;
};
struct AddressesReply {
  std::vector<InterfaceReply> interfaces;
};

// ---- events (of the kind with a callback id; the old kind is the same without it) ----
struct EventRegisterArgs {
  i32 event_id = 0;
  std::optional<DomainRef> dom;
};
struct LifecycleMessage {
  DomainRef dom;
  i32 event = 0, detail = 0;
};
struct DomainMessage {
  DomainRef dom;
};
struct BalloonMessage {
  DomainRef dom;
  u64 actual_kib = 0;
};
struct DeviceMessage {
  DomainRef dom;
  std::string alias;
};
struct TunableMessage {
  DomainRef dom;
  TypedParams params;
};
struct MetadataMessage {
  DomainRef dom;
  i32 type = 0;
  MaybeText uri;
};
// clang-format on

}  // namespace wire
}  // namespace virtuserns::rpc
