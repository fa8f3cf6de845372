// Driver: the operations that any hypervisor implements, in terms of conf types.
//
// The front end (driver/rpc) decodes a call, checks authentication and read-only, parses XML, and calls one of
// these. It knows nothing else about the hypervisor; a driver knows nothing of the wire and nothing of XML text.
//
// Contract of every operation:
//  * may be called from any thread, several at once; it blocks the calling worker only;
//  * `flags` are libvirt's public flags of the corresponding virDomain* call, not yet checked: an operation refuses
//    flags it does not know with VIR_ERR_INVALID_ARG (see refuse_unknown_flags);
//  * a domain is named by uuid; a missing one is VIR_ERR_NO_DOMAIN ("no domain with matching uuid '...'");
//  * errors carry the libvirt code a user of libvirt's own drivers would see; nothing is left behind after one;
//  * an event is emitted before the operation returns;
//  * the default of each operation is VIR_ERR_NO_SUPPORT, as libvirt answers for a missing table entry.
//
// A module exports `virtuserns_driver_module` (below) and is loaded by URI scheme.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/capabilities.h"
#include "conf/domain.h"
#include "conf/exec.h"
#include "conf/typed_param.h"
#include "driver/events.h"

namespace virtuserns {

struct DaemonConfig;  // conf/daemon_config.h
struct Paths;         // conf/paths.h

// Who is calling: from SO_PEERCRED at accept, or from CONNECT_SET_IDENTITY of a trusted proxy.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
  std::string user_name;
  std::uint64_t connection_id = 0;  // unique in the life of the daemon; the key of autodestroy
  bool read_only = false;
  // Not an administrator: for this caller there are its own domains (conf/owner.h) and no others. What such a caller may ask for
  // at all is the front end's to say (driver/rpc/access.h); that a definition stays the caller's own, and contains only what an
  // owner may write, is the driver's, because it holds the domain's job.
  bool owns_only = false;
};

struct DomainInfo {
  int state = 0;  // virDomainState
  std::uint64_t max_memory_kib = 0, memory_kib = 0;
  std::uint32_t vcpus = 0;
  std::uint64_t cpu_time_ns = 0;
};

struct DomainState {
  int state = 0, reason = 0;
};

// What a list needs to know of a domain to filter it (virConnectListAllDomainsFlags).
struct DomainSummary {
  DomainRef ref;
  int state = 0;
  bool persistent = false, autostart = false, has_managed_save = false, has_snapshot = false, has_checkpoint = false;
  std::optional<OwnerDef> owner;  // as Driver::owner() says it
};

struct VcpuInfo {
  std::uint32_t number = 0;
  int state = 0;  // virVcpuState
  std::uint64_t cpu_time_ns = 0;
  int cpu = -1;
  std::vector<bool> affinity;
};

struct MemoryStat {
  int tag = 0;
  std::uint64_t value = 0;
};  // virDomainMemoryStatTags

struct BlockStats {
  std::int64_t read_requests = -1, read_bytes = -1, write_requests = -1, write_bytes = -1, errors = -1;
};

struct InterfaceStats {
  std::int64_t rx_bytes = -1, rx_packets = -1, rx_errors = -1, rx_dropped = -1;
  std::int64_t tx_bytes = -1, tx_packets = -1, tx_errors = -1, tx_dropped = -1;
};

struct InterfaceAddresses {
  std::string name, hardware_address;
  struct Address {
    int type = 0;
    std::string address;
    std::uint32_t prefix = 0;
  };  // virIPAddrType
  std::vector<Address> addresses;
};

struct ControlInfo {
  std::uint32_t state = 0, details = 0;
  std::uint64_t state_time_ms = 0;
};

struct DomainStats {
  DomainRef ref;
  TypedParams params;
};

struct CpuStats {                    // virDomainGetCPUStats
  std::uint32_t cpus = 0;            // how many host cpus there are to ask for
  TypedParams total;                 // "cpu_time", "user_time", "system_time"
  std::vector<TypedParams> per_cpu;  // "cpu_time", [..]
};

struct NodeStat {
  std::string field;
  std::uint64_t value = 0;
};

struct SecurityLabel {
  std::string label;
  bool enforcing = false;
};
struct SecurityModel {
  std::string model, doi;
};

struct NamespaceFds {   // for virDomainLxcOpenNamespace
  std::vector<Fd> fds;  // user, ipc, uts, net, pid, mnt: the order the client expects
};

struct StartedCommand {
  std::int32_t status = 0;  // 0: it runs; else it could not be run, as a shell's exit status, and `text` says why
  std::string text;
  // The socket of conf/exec.h; then the far ends of its stdin, stdout and stderr, or the master of its terminal.
  std::vector<Fd> fds;
};

// Refuses every bit of `flags` outside `known`, in libvirt's words.
[[nodiscard]] Result<void> refuse_unknown_flags(unsigned flags, unsigned known, const char* function);

class Driver {
 public:
  virtual ~Driver() = default;

  // ---- life of the driver ----
  // Called once after load, before the first operation: recovers running domains. Autostart is separate.
  virtual Result<void> start() { return {}; }
  virtual void autostart_all() {}
  // Called once before unload. Running domains keep running.
  virtual void stop() {}
  // The configuration was read again (SIGHUP). What a driver can change while domains run, it changes for what comes.
  virtual void reload(const DaemonConfig& config) { (void)config; }
  // True while the daemon must not leave for idleness (session mode, --timeout).
  virtual bool has_active_domains() { return false; }
  // A client connection ended: autodestroy of what it created.
  virtual void connection_closed(std::uint64_t connection_id) { (void)connection_id; }

  // ---- host ----
  virtual std::string type_name() const = 0;           // virConnectGetType: "LXC", "TEST"
  virtual Result<std::uint64_t> hypervisor_version();  // major*1000000 + minor*1000 + release
  virtual Result<std::string> hostname();              // default: gethostname
  virtual Result<Capabilities> capabilities();
  virtual Result<DomainCapabilities> domain_capabilities(const std::string& emulator, const std::string& arch,
                                                         const std::string& machine, const std::string& virt_type);
  virtual Result<int> max_vcpus(const std::string& type);
  virtual Result<NodeFacts> node_facts();
  virtual Result<std::vector<NodeStat>> node_cpu_stats(int cpu, unsigned flags);      // -1: all cpus
  virtual Result<std::vector<NodeStat>> node_memory_stats(int cell, unsigned flags);  // -1: all cells
  virtual Result<std::uint64_t> node_free_memory_bytes();
  virtual Result<std::vector<std::uint64_t>> node_cells_free_memory_bytes(int start, int max);
  virtual Result<std::vector<std::uint64_t>> node_free_pages(const std::vector<std::uint32_t>& page_sizes_kib,
                                                             int start_cell, unsigned cell_count, unsigned flags);
  virtual Result<std::string> sysinfo(unsigned flags);  // XML text (smbios); NO_SUPPORT where there is none
  virtual Result<SecurityModel> security_model();

  // ---- finding domains ----
  virtual Result<std::vector<DomainSummary>> list_domains() = 0;
  virtual Result<DomainRef> lookup_by_id(int id) = 0;
  virtual Result<DomainRef> lookup_by_name(const std::string& name) = 0;
  virtual Result<DomainRef> lookup_by_uuid(const Uuid& uuid) = 0;

  // Whose the domain is: nobody's (an administrator's) also while two definitions of it, of what runs and of the next start, name
  // different owners.
  virtual Result<std::optional<OwnerDef>> owner(const Uuid& uuid);

  // ---- definitions ----
  // The def is parsed but neither defaulted nor validated: the driver does both (conf/defaults.h, validate.h).
  virtual Result<DomainRef> define(const Caller&, DomainDef def, unsigned flags);
  virtual Result<void> undefine(const Caller&, const Uuid&, unsigned flags);
  // VIR_DOMAIN_XML_INACTIVE: the persistent definition of a running domain; otherwise live (id, aliases, ranges...).
  virtual Result<DomainDef> definition(const Caller&, const Uuid&, unsigned flags);
  virtual Result<void> rename(const Caller&, const Uuid&, const std::string& new_name, unsigned flags);
  virtual Result<bool> autostart(const Uuid&);
  virtual Result<void> set_autostart(const Caller&, const Uuid&, bool on);
  virtual Result<bool> is_active(const Uuid&);
  virtual Result<bool> is_persistent(const Uuid&);
  virtual Result<bool> is_updated(const Uuid&);
  virtual Result<bool> has_managed_save(const Uuid&, unsigned flags);
  virtual Result<std::string> metadata(const Uuid&, int type, const std::string& uri, unsigned flags);
  // `value` empty: remove. For VIR_DOMAIN_METADATA_ELEMENT it is the canonical element (namespace declared).
  virtual Result<void> set_metadata(const Caller&, const Uuid&, int type, std::optional<std::string> value,
                                    const std::string& uri, unsigned flags);
  // Formats are "lxc-tools" and such, as libvirt names them. The way back needs no driver: xml::parse_lxc_config.
  virtual Result<std::string> to_native(const std::string& format, DomainDef def, unsigned flags);

  // ---- lifecycle ----
  // `files` become the first extra descriptors of init (virDomainCreateWithFiles).
  virtual Result<DomainRef> create(const Caller&, const Uuid&, std::vector<Fd> files, unsigned flags);
  virtual Result<DomainRef> create_transient(const Caller&, DomainDef def, std::vector<Fd> files, unsigned flags);
  virtual Result<void> shutdown(const Caller&, const Uuid&, unsigned flags);
  virtual Result<void> reboot(const Caller&, const Uuid&, unsigned flags);
  virtual Result<void> reset(const Caller&, const Uuid&, unsigned flags);
  virtual Result<void> destroy(const Caller&, const Uuid&, unsigned flags);
  virtual Result<void> suspend(const Caller&, const Uuid&);
  virtual Result<void> resume(const Caller&, const Uuid&);
  virtual Result<void> send_process_signal(const Caller&, const Uuid&, std::int64_t pid, unsigned signal,
                                           unsigned flags);
  virtual Result<void> set_user_password(const Caller&, const Uuid&, const std::string& user,
                                         const std::string& password, unsigned flags);
  // `to`: a file of the host's, absolute. flags: virDomainCoreDumpFlags.
  virtual Result<void> core_dump(const Caller&, const Uuid&, const std::string& to, unsigned flags);

  // ---- watching ----
  virtual Result<DomainInfo> info(const Uuid&);
  virtual Result<DomainState> state(const Uuid&, unsigned flags);
  virtual Result<ControlInfo> control_info(const Uuid&, unsigned flags);
  virtual Result<std::vector<VcpuInfo>> vcpus(const Uuid&);
  virtual Result<int> vcpu_count(const Uuid&, unsigned flags);
  virtual Result<std::vector<std::vector<bool>>> vcpu_pins(const Uuid&, unsigned flags);
  virtual Result<std::vector<MemoryStat>> memory_stats(const Uuid&, unsigned flags);
  virtual Result<BlockStats> block_stats(const Uuid&, const std::string& path);  // "": all together
  virtual Result<InterfaceStats> interface_stats(const Uuid&, const std::string& device);
  virtual Result<std::vector<InterfaceAddresses>> interface_addresses(const Uuid&, unsigned source, unsigned flags);
  virtual Result<CpuStats> cpu_stats(const Uuid&, unsigned flags);
  // `uuids` empty: every domain that the flags select. `stats`: virDomainStatsTypes, 0 = all.
  virtual Result<std::vector<DomainStats>> all_stats(const std::vector<Uuid>& uuids, unsigned stats, unsigned flags);
  virtual Result<std::string> domain_hostname(const Uuid&, unsigned flags);
  virtual Result<std::vector<std::string>> messages(const Uuid&, unsigned flags);  // virDomainGetMessages
  virtual Result<SecurityLabel> security_label(const Uuid&);

  // ---- tuning ----
  virtual Result<std::uint64_t> max_memory_kib(const Uuid&);
  virtual Result<void> set_memory(const Caller&, const Uuid&, std::uint64_t kib, unsigned flags);  // _MEM_MAXIMUM too
  virtual Result<TypedParams> memory_parameters(const Uuid&, unsigned flags);
  virtual Result<void> set_memory_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags);
  virtual Result<std::string> scheduler_type(const Uuid&, int* parameter_count);
  virtual Result<TypedParams> scheduler_parameters(const Uuid&, unsigned flags);
  virtual Result<void> set_scheduler_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags);
  virtual Result<TypedParams> blkio_parameters(const Uuid&, unsigned flags);
  virtual Result<void> set_blkio_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags);
  virtual Result<void> set_vcpus(const Caller&, const Uuid&, unsigned count, unsigned flags);
  virtual Result<void> pin_vcpu(const Caller&, const Uuid&, unsigned vcpu, const std::vector<bool>& cpus,
                                unsigned flags);

  // ---- devices ----
  virtual Result<void> attach_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags);
  virtual Result<void> detach_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags);
  virtual Result<void> update_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags);
  // A bidirectional, non-blocking descriptor: what init writes to the console and what the user types. `device`
  // empty: the first. VIR_DOMAIN_CONSOLE_FORCE takes the console from whoever has it.
  virtual Result<SocketFd> open_console(const Caller&, const Uuid&, const std::string& device, unsigned flags);
  virtual Result<NamespaceFds> open_namespaces(const Caller&, const Uuid&, unsigned flags);
  // Ours, not libvirt's. Returns when the command was started or could not be; `def` is not yet checked, nor `program`,
  // which may be empty (validate_program).
  virtual Result<StartedCommand> exec(const Caller&, const Uuid&, const ExecDef& def, Fd program);
};

// ---- the plug ---------------------------------------------------------------------------------------------------

inline constexpr unsigned kDriverInterfaceVersion = 7;

struct DriverHost {  // what the daemon lends to a module; outlives it
  const DaemonConfig* config = nullptr;
  const Paths* paths = nullptr;
  EventHub* events = nullptr;
};

struct DriverModule {
  unsigned interface_version;  // kDriverInterfaceVersion
  const char* scheme;          // "userns", "test"
  Result<std::unique_ptr<Driver>> (*create)(const DriverHost& host);
};

extern "C" {
using DriverModuleSymbol = const DriverModule* (*)();
}
inline constexpr const char* kDriverModuleSymbol = "virtuserns_driver_module";

}  // namespace virtuserns
