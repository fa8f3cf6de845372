// What is converted: a domain of a connection, a definition in a file, or a disk alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "tools/convert/findings.h"
#include "tools/convert/image.h"
#include "tools/convert/map_domain.h"

namespace virtuserns::convert {

struct SourceOptions {
  std::string uri;                   // --connect
  std::string xml_file;              // --xml
  std::string format;                // --format, of a disk alone
  std::vector<std::string> folders;  // --backing-folder
  std::uint64_t memory_mib = 1024;   // of a disk alone
  std::uint32_t vcpus = 1;
};

struct SourceVm {
  std::string xml;  // libvirt's; made up for a disk alone
  KvmDomain domain;
  std::optional<bool> autostart;
  struct Disk {
    std::string target;  // "vda"
    std::vector<Image> chain;
  };
  std::vector<Disk> disks;
  std::vector<Finding> findings;  // disks that are left out
};

// A disk whose files can be read here.
[[nodiscard]] bool is_readable(const SourceDisk& disk);
// The machine of a definition, with its disks as they are now.
[[nodiscard]] Result<SourceVm> read_definition(std::string xml, std::optional<bool> autostart,
                                               const SourceOptions& options);
// `word`: a domain of options.uri, or the path of a disk; with options.xml_file it is not looked at. An error: it
// runs, or one of its disks cannot be read.
[[nodiscard]] Result<SourceVm> read_source(const std::string& word, const SourceOptions& options);

}  // namespace virtuserns::convert
