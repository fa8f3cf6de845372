#include "tools/convert/source.h"

#include <sys/stat.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/convert/domains.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kMaxXmlBytes = 4 * 1024 * 1024;

std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text)
    escaped += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '\'' ? "&apos;" : std::string(1, c);
  return escaped;
}

// "/images/web1.qcow2" is "web1".
std::string name_of(const std::string& path) {
  const auto file = path.substr(path.rfind('/') + 1);
  const auto name = file.substr(0, file.find('.', 1));
  return name.empty() ? "converted" : name;
}

std::string make_xml(const Image& image, const SourceOptions& options) {
  return "<domain type='kvm'><name>" + escape(name_of(image.path)) + "</name><memory unit='MiB'>" +
         std::to_string(options.memory_mib) + "</memory><vcpu>" + std::to_string(options.vcpus) +
         "</vcpu><os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>"
         "<driver name='qemu' type='" +
         image.format + "'/><source file='" + escape(image.path) +
         "'/><target dev='vda' bus='virtio'/></disk></devices></domain>\n";
}

// A name that is a folder of where one stands may still be that of a domain.
bool is_disk(const std::string& word) {
  struct stat st {};
  return word.find('/') != std::string::npos || (::stat(word.c_str(), &st) == 0 && !S_ISDIR(st.st_mode));
}

Result<SourceVm> read_lone_disk(const std::string& path, const SourceOptions& options) {
  SourceVm vm;
  auto chain = TRY(read_chain(path, options.format, options.folders));
  // The first bytes of a raw disk are its guest's: it could name the disk of another machine in the same folder.
  if (options.format.empty() && chain.size() > 1)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                quote(path) + " begins as a qcow2 on top of " + quote(chain[1].path) +
                    ", which the guest of a raw disk can write there too; say --format qcow2 if it is one, or raw");
  if (!is_utf8(chain.front().path)) return fail(VIR_ERR_CONFIG_UNSUPPORTED, quote(path) + " is no UTF-8");
  vm.xml = make_xml(chain.front(), options);
  vm.domain = TRY(read_kvm_domain(vm.xml));
  vm.disks.push_back({"vda", std::move(chain)});
  return vm;
}

bool is_disk_device(const SourceDisk& disk) {
  return disk.device == "disk" || disk.device == "lun" || disk.device.empty();
}

bool is_path(const SourceDisk& disk) { return (disk.type == "file" || disk.type == "block") && !disk.source.empty(); }

Result<void> take_disks(const SourceOptions& options, SourceVm& vm) {
  for (const auto& disk : vm.domain.disks) {
    if (!is_disk_device(disk)) continue;  // map_domain speaks of them
    if (!is_readable(disk)) {
      vm.findings.push_back({Severity::kLoss, "disk '" + disk.target + "'",
                             is_path(disk) ? "is encrypted by qemu and not opened" : "is no file and no block device",
                             "copy it to a qcow2 file, by 'qemu-img convert'"});
      continue;
    }
    // libvirt's own rule: without a format it is raw, whatever the guest has written into it.
    auto chain = TRY(read_chain(disk.source, disk.format.empty() ? "raw" : disk.format, options.folders),
                     "disk '" + disk.target + "'");
    vm.disks.push_back({disk.target, std::move(chain)});
  }
  if (vm.disks.empty())
    return fail(VIR_ERR_OPERATION_FAILED, quote(vm.domain.name) + " has no disk that can be read");
  return {};
}

}  // namespace

bool is_readable(const SourceDisk& disk) { return is_disk_device(disk) && is_path(disk) && !disk.has_encryption; }

Result<SourceVm> read_definition(std::string xml, std::optional<bool> autostart, const SourceOptions& options) {
  SourceVm vm;
  vm.xml = std::move(xml);
  vm.autostart = autostart;
  vm.domain = TRY(read_kvm_domain(vm.xml));
  TRY(take_disks(options, vm));
  return vm;
}

Result<SourceVm> read_source(const std::string& word, const SourceOptions& options) {
  if (!options.xml_file.empty())
    return read_definition(TRY(read_file(options.xml_file, kMaxXmlBytes)), std::nullopt, options);
  if (is_disk(word)) return read_lone_disk(word, options);
  auto domain = TRY(read_domain(options.uri, word), quote(word) + " is no disk here, and as a domain");
  if (domain.is_active)
    return fail(
        VIR_ERR_OPERATION_INVALID,
        "domain " + quote(domain.name) + " is active; shut it off first, or take it over as it runs, by --live");
  return read_definition(std::move(domain.xml), domain.autostart, options);
}

}  // namespace virtuserns::convert
