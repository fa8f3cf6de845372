#include "tools/convert/map_table.h"

#include <algorithm>

namespace virtuserns::convert {

namespace {

constexpr ElementRow mapped(const char* path) { return {path, Fate::kMapped, Severity::kNote, "", ""}; }
constexpr ElementRow whole(const char* path) { return {path, Fate::kMapped, Severity::kNote, "", "", true}; }
constexpr ElementRow note(const char* path, const char* text, const char* remedy = "") {
  return {path, Fate::kDropped, Severity::kNote, text, remedy};
}
constexpr ElementRow loss(const char* path, const char* text, const char* remedy = "") {
  return {path, Fate::kDropped, Severity::kLoss, text, remedy};
}
constexpr ElementRow refused(const char* path, const char* text, const char* remedy = "") {
  return {path, Fate::kRefused, Severity::kBlock, text, remedy};
}

constexpr const char* kHardware = "is of virtual hardware, which a container has not";
constexpr const char* kFirmware = "is for booting by firmware; a container starts its init";
constexpr const char* kQemu = "is qemu's; a container has no qemu";
constexpr const char* kIoThreads = "is of threads of qemu, which a container has not";

constexpr ElementRow kRows[] = {
    mapped("name"),
    mapped("uuid"),
    mapped("genid"),
    mapped("title"),
    mapped("description"),
    whole("metadata"),
    // memory
    mapped("memory"),
    mapped("currentMemory"),
    note("maxMemory", "is what memory could be plugged up to; the limit of a container is raised while it runs",
         "virsh setmaxmem, virsh setmem"),
    note("memoryBacking", "is how qemu keeps the machine's memory; a container's is the host's"),
    mapped("memtune"),
    mapped("memtune/hard_limit"),
    mapped("memtune/soft_limit"),
    mapped("memtune/swap_hard_limit"),
    note("memtune/min_guarantee", "is not there for containers"),
    mapped("blkiotune"),
    mapped("blkiotune/weight"),
    whole("blkiotune/device"),
    // processors
    mapped("vcpu"),
    note("vcpus", "tells of single virtual processors; a container has a number of them"),
    note("iothreads", kIoThreads),
    note("iothreadids", kIoThreads),
    note("defaultiothread", kIoThreads),
    mapped("cputune"),
    mapped("cputune/shares"),
    mapped("cputune/period"),
    mapped("cputune/quota"),
    mapped("cputune/global_period"),
    mapped("cputune/global_quota"),
    mapped("cputune/vcpupin"),
    note("cputune/emulatorpin", kQemu),
    note("cputune/emulator_period", kQemu),
    note("cputune/emulator_quota", kQemu),
    note("cputune/emulatorsched", kQemu),
    note("cputune/iothreadpin", kIoThreads),
    note("cputune/iothread_period", kIoThreads),
    note("cputune/iothread_quota", kIoThreads),
    note("cputune/iothreadsched", kIoThreads),
    loss("cputune/vcpusched", "schedules virtual processors in real time; a container's processes are ordinary ones"),
    loss("cputune/cachetune", "reserves processor cache; this is not done for containers"),
    loss("cputune/memorytune", "reserves memory bandwidth; this is not done for containers"),
    mapped("numatune"),
    mapped("numatune/memory"),
    note("numatune/memnode", "is of virtual NUMA nodes; a container sees the host's"),
    mapped("resource"),
    mapped("resource/partition"),
    note("resource/fibrechannel", kHardware),
    note("cpu", "is a virtual processor; a container sees the host's"),
    note("sysinfo", "is what firmware would say: dmidecode inside shows the host's, if anything"),
    // boot
    note("bootloader", kFirmware),
    note("bootloader_args", kFirmware),
    mapped("os"),
    mapped("os/type"),
    note("os/firmware", kFirmware),
    note("os/loader", kFirmware),
    note("os/nvram", kFirmware),
    note("os/boot", kFirmware),
    note("os/bootmenu", kFirmware),
    note("os/bios", kFirmware),
    note("os/smbios", kFirmware),
    note("os/acpi", kFirmware),
    loss("os/kernel", "names a kernel of the machine; a container runs on the host's"),
    note("os/initrd", "goes with a kernel; a container runs on the host's"),
    note("os/cmdline", "is for a kernel; a container runs on the host's"),
    note("os/root", "is for a kernel; a container runs on the host's"),
    note("os/dtb", "is for a kernel; a container runs on the host's"),
    note("os/init", "is of containers; the machine's init is found in its root filesystem"),
    note("os/initarg", "is of containers"),
    note("os/initenv", "is of containers"),
    note("os/initdir", "is of containers"),
    note("os/inituser", "is of containers"),
    note("os/initgroup", "is of containers"),
    note("idmap", "is of containers: ids are leased by the daemon"),
    note("features", kHardware),
    mapped("clock"),
    note("clock/timer", "is of virtual hardware; the clock is the host's"),
    // life
    mapped("on_poweroff"),
    mapped("on_reboot"),
    mapped("on_crash"),
    note("on_lockfailure", "is of disk locks, which a container has not"),
    note("pm", "is of sleep states; a container is suspended by virsh suspend"),
    note("perf", "is not counted for containers"),
    note("seclabel", "is a label of a qemu process; a container gets its own"),
    note("keywrap", kHardware),
    refused("launchSecurity", "keeps the machine's memory secret from the host, which no container can",
            "leave it a machine"),
    // of other hypervisors and of qemu itself
    loss("commandline", "passes arguments to qemu; a container has no qemu"),
    note("capabilities", kQemu),
    note("override", kQemu),
    note("deprecation", kQemu),
    note("datacenterpath", "is VMware's"),
    note("namespace", "is of containers"),
    // devices
    mapped("devices"),
    note("devices/emulator", kQemu),
    whole("devices/disk"),
    whole("devices/filesystem"),
    note("devices/controller", kHardware),
    loss("devices/lease", "guards its disks by a lock daemon, which is not asked for a container"),
    mapped("devices/interface"),
    mapped("devices/interface/mac"),
    mapped("devices/interface/source"),
    whole("devices/interface/source/*"),
    mapped("devices/interface/target"),
    mapped("devices/interface/guest"),
    note("devices/interface/model", "is a virtual card; a container's is a veth or macvlan"),
    note("devices/interface/driver", "is of a virtual card"),
    mapped("devices/interface/link"),
    mapped("devices/interface/mtu"),
    whole("devices/interface/bandwidth"),
    whole("devices/interface/filterref"),
    whole("devices/interface/vlan"),
    whole("devices/interface/virtualport"),
    mapped("devices/interface/port"),
    mapped("devices/interface/ip"),
    mapped("devices/interface/route"),
    mapped("devices/interface/backend"),
    whole("devices/interface/portForward"),
    note("devices/interface/boot", kFirmware),
    note("devices/interface/rom", kFirmware),
    note("devices/interface/acpi", kFirmware),
    mapped("devices/interface/address"),
    whole("devices/interface/address/*"),
    note("devices/interface/alias", "names it in a running machine"),
    note("devices/interface/tune", "is of a virtual card"),
    note("devices/interface/coalesce", "is of a tap device; a container has none"),
    note("devices/interface/backenddomain", "is Xen's"),
    loss("devices/interface/teaming", "pairs a virtual card with one of the host; a container has the first only"),
    loss("devices/interface/script", "is a script of the host, and the host runs none for containers"),
    loss("devices/interface/downscript", "is a script of the host, and the host runs none for containers"),
    whole("devices/console"),
    whole("devices/serial"),
    loss("devices/parallel", "is a parallel port; a container has none"),
    note("devices/channel", "is a channel to an agent inside; a container is reached without"),
    note("devices/input", kHardware),
    loss("devices/smartcard", "passes smart cards; a container has no card reader"),
    loss("devices/tpm", "is a TPM: what the machine sealed by it stays sealed",
         "unseal or re-encrypt it in the machine first"),
    loss("devices/graphics", "shows a screen; a container has a console only", "virsh console; ssh"),
    note("devices/video", kHardware),
    note("devices/sound", kHardware),
    note("devices/audio", kHardware),
    loss("devices/hostdev", "is a device of the host that was passed through; containers get nodes of /dev",
         "give it by <hostdev mode='capabilities'> of virtuserns-domain-xml(5), if there is a driver on the host"),
    loss("devices/redirdev", "redirects USB devices of a viewer; a container has no viewer"),
    note("devices/redirfilter", kHardware),
    note("devices/hub", kHardware),
    loss("devices/watchdog", "resets a machine that hangs; a container has no watchdog", "watch it from outside"),
    note("devices/memballoon", "gives memory back to the host; a container's is the host's"),
    note("devices/rng", "is a source of random numbers; a container has the host's"),
    note("devices/nvram", kFirmware),
    note("devices/panic", "tells of crashes of a kernel; a container has none"),
    loss("devices/shmem", "is memory that is shared with other machines",
         "share a directory of /dev/shm by <filesystem>"),
    note("devices/memory", "is part of <memory>, which is the container's limit"),
    note("devices/iommu", kHardware),
    loss("devices/vsock", "is a socket between machine and host; a container has none", "use a network"),
    note("devices/crypto", kHardware),
};

bool is_match(std::string_view row, std::string_view path) {
  if (row == path) return true;
  return row.ends_with("/*") && path.starts_with(row.substr(0, row.size() - 1)) &&
         path.substr(row.size() - 1).find('/') == std::string_view::npos;
}

}  // namespace

const ElementRow* find_row(std::string_view path) {
  const auto* found = std::find_if(std::begin(kRows), std::end(kRows),
                                   [&](const ElementRow& row) { return is_match(row.path, path); });
  return found == std::end(kRows) ? nullptr : found;
}

}  // namespace virtuserns::convert
