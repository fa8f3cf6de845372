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
  std::vector<FilesystemDef> filesystems;    // root and the rest, as the disks' owner made them
  std::vector<std::string> converted_disks;  // targets ("vda") that those serve; the others are reported
  std::vector<GuestNic> nics;                // names inside, by MAC
  std::string init;                          // empty: /sbin/init
  std::string host_arch = "x86_64";
  std::uint32_t id_count = 0;     // 0: the broker's own choice
  std::optional<bool> autostart;  // of the VM; it is no part of the XML
};

struct Mapped {
  DomainDef def;  // defaults applied, validated; <userns:image> elements may still be added to it
  std::vector<Finding> findings;
};
// VIR_ERR_XML_*: not a domain; VIR_ERR_CONFIG_UNSUPPORTED: refused by name. The definition has passed validate().
[[nodiscard]] Result<Mapped> map_domain(std::string_view kvm_xml, const MapOptions& options);

}  // namespace virtuserns::convert
