// What this host and this driver can do: <capabilities>, <domainCapabilities>, node facts.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/uuid.h"

namespace virtuserns {

struct HostCpu {
  int id = 0;
  int socket_id = 0, die_id = 0, core_id = 0;
  std::string siblings;  // "0-1"
  bool operator==(const HostCpu&) const = default;
};

struct NumaPages {
  std::uint32_t size_kib = 4;
  std::uint64_t count = 0;
  bool operator==(const NumaPages&) const = default;
};

struct NumaDistance {
  int cell = 0, value = 10;
  bool operator==(const NumaDistance&) const = default;
};

struct NumaCell {
  int id = 0;
  std::uint64_t memory_kib = 0, free_kib = 0;
  std::vector<HostCpu> cpus;
  std::vector<NumaPages> pages;         // may be empty
  std::vector<NumaDistance> distances;  // may be empty
  bool operator==(const NumaCell&) const = default;
};

struct NodeFacts {
  std::string arch;       // "x86_64"
  std::string cpu_model;  // as in virNodeInfo.model (libvirt gives the arch), at most 31 characters
  std::uint64_t memory_kib = 0;
  std::uint32_t cpus = 0, mhz = 0, nodes = 1, sockets = 1, cores = 1, threads = 1;
  std::vector<NumaCell> cells;
  std::vector<bool> present_cpus, online_cpus;
  std::vector<std::uint32_t> page_sizes_kib;
  Uuid host_uuid;
};

struct GuestArch {
  std::string arch;  // "x86_64", "i686"
  int word_size = 64;
  std::string emulator;
};

struct Capabilities {
  NodeFacts node;
  std::string virt_type = "lxc";
  std::string os_type = "exe";
  std::vector<GuestArch> guests;
  std::vector<std::string> secmodels;  // "none", "apparmor", ...
  bool has_capabilities_feature = true, has_privnet_feature = true;
};

struct DomainCapabilities {
  std::string path, domain_type = "lxc", arch, machine;
  std::uint32_t max_vcpus = 0;
  std::vector<std::string> filesystem_driver_types;
};

}  // namespace virtuserns
