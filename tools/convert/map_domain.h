// A KVM domain's XML to a definition of ours: every element is mapped, dropped with a note, or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "tools/convert/findings.h"
#include "tools/convert/fstab.h"
#include "tools/convert/nics.h"

namespace virtuserns::convert {

enum class Identity { kMove, kCopy };  // a move keeps uuid, genid and MAC addresses; a copy gets its own

// What the XML says of one disk, for whoever opens it.
struct SourceDisk {
  std::string target;  // "vda"
  std::string device;  // disk | cdrom | floppy | lun
  std::string type;    // file | block | network | volume | ...
  std::string format;  // qcow2, raw, ... of <driver type=''/>; may be empty
  std::string source;  // path; empty where there is none or it is no path
  bool is_readonly = false, is_shared = false, has_encryption = false;
};

// The first reading, before anything is opened.
struct KvmDomain {
  std::string name;
  std::string virt_type;  // kvm, qemu, ...
  std::string arch;
  std::vector<SourceDisk> disks;
  std::vector<NicSource> nics;  // in the order of the XML
};
[[nodiscard]] Result<KvmDomain> read_kvm_domain(std::string_view kvm_xml);

struct MapOptions {
  std::string name;  // of the new domain; empty: as it was
  Identity identity = Identity::kMove;
  std::vector<FilesystemDef> filesystems;    // root and the rest, as whoever opened the disks made them
  std::vector<std::string> converted_disks;  // targets ("vda") that those serve; the others are reported
  std::vector<GuestShare> shares;
  std::vector<GuestNic> nics;   // names inside by the machine's MAC; mac and former_mac where a copy gets another
  std::string userns_children;  // more of <userns:domain>, without prefix: "<image target='/' partition='1'/>"
  std::string init;             // empty: /sbin/init
  std::string host_arch = "x86_64";
  std::uint32_t id_count = 0;     // 0: as many as the daemon leases by itself
  std::optional<bool> autostart;  // of the machine; it is no part of the XML and is only told
};

struct Mapped {
  DomainDef def;                  // defaults applied, and validate() has passed it; xml::format_domain prints it
  std::vector<Finding> findings;  // kBlock: refused by name; `def` is then without it
};
// VIR_ERR_XML_ERROR and VIR_ERR_XML_DETAIL: not a domain, or values that cannot be understood; VIR_ERR_CONFIG_UNSUPPORTED:
// no machine, or no valid container.
[[nodiscard]] Result<Mapped> map_domain(std::string_view kvm_xml, const MapOptions& options);

}  // namespace virtuserns::convert
