// The order in which libvirt prints attributes and children (virDomainDefFormatInternal and below). What libvirt does
// not know is printed after what it knows.
#pragma once

#include <string_view>

namespace virtuserns::xml::order {

inline constexpr std::string_view kDomain[] = {"name",
                                               "uuid",
                                               "genid",
                                               "title",
                                               "description",
                                               "metadata",
                                               "maxMemory",
                                               "memory",
                                               "currentMemory",
                                               "blkiotune",
                                               "memtune",
                                               "memoryBacking",
                                               "vcpu",
                                               "vcpus",
                                               "iothreads",
                                               "iothreadids",
                                               "defaultiothread",
                                               "cputune",
                                               "numatune",
                                               "resource",
                                               "sysinfo",
                                               "bootloader",
                                               "bootloader_args",
                                               "os",
                                               "idmap",
                                               "features",
                                               "cpu",
                                               "clock",
                                               "on_poweroff",
                                               "on_reboot",
                                               "on_crash",
                                               "on_lockfailure",
                                               "pm",
                                               "perf",
                                               "devices",
                                               "seclabel",
                                               "keywrap",
                                               "launchSecurity",
                                               "lxc:namespace"};
inline constexpr std::string_view kDevices[] = {
    "emulator", "disk",    "controller", "lease",       "filesystem", "interface", "smartcard",  "serial",
    "parallel", "console", "channel",    "input",       "tpm",        "graphics",  "sound",      "audio",
    "video",    "hostdev", "redirdev",   "redirfilter", "hub",        "watchdog",  "memballoon", "rng",
    "nvram",    "panic",   "shmem",      "memory",      "iommu",      "vsock",     "crypto"};

inline constexpr std::string_view kOs[] = {
    "type",   "firmware", "init",    "initarg", "initenv", "initdir", "inituser", "initgroup", "loader", "nvram",
    "kernel", "initrd",   "cmdline", "dtb",     "root",    "acpi",    "boot",     "bootmenu",  "bios",   "smbios"};
inline constexpr std::string_view kFeatures[] = {
    "acpi",         "apic", "pae",        "hap", "viridian", "privnet", "hyperv", "kvm",        "pvspinlock",
    "capabilities", "pmu",  "vmport",     "gic", "smm",      "ioapic",  "hpt",    "vmcoreinfo", "htm",
    "nested-hv",    "msrs", "ccf-assist", "xen", "cfpc",     "sbbc",    "ibs",    "tcg"};
inline constexpr std::string_view kCpuTune[] = {
    "shares",         "period",          "quota",          "global_period", "global_quota", "emulator_period",
    "emulator_quota", "iothread_period", "iothread_quota", "vcpupin",       "emulatorpin",  "iothreadpin",
    "emulatorsched",  "vcpusched",       "iothreadsched",  "cachetune",     "memorytune"};
inline constexpr std::string_view kMemoryAttributes[] = {"dumpCore", "unit"};
inline constexpr std::string_view kClockAttributes[] = {"offset", "adjustment", "basis", "timezone", "start"};
inline constexpr std::string_view kTimerAttributes[] = {"name",  "present",   "tickpolicy",
                                                        "track", "frequency", "mode"};

inline constexpr std::string_view kFilesystemAttributes[] = {"type",      "accessmode", "model",
                                                             "multidevs", "fmode",      "dmode"};
inline constexpr std::string_view kFilesystem[] = {
    "driver", "binary", "source",  "target",           "readonly",        "boot", "alias", "master",
    "rom",    "acpi",   "address", "space_hard_limit", "space_soft_limit"};
inline constexpr std::string_view kDiskAttributes[] = {"type", "device", "model", "rawio", "sgio", "snapshot"};
inline constexpr std::string_view kDisk[] = {
    "driver",  "auth",       "source",   "backingStore", "backenddomain", "geometry", "blockio", "mirror",
    "target",  "iotune",     "readonly", "shareable",    "transient",     "serial",   "wwn",     "vendor",
    "product", "encryption", "boot",     "alias",        "master",        "rom",      "acpi",    "address"};
inline constexpr std::string_view kInterface[] = {
    "mac",    "source",      "class",     "vlan",       "virtualport",   "bandwidth", "port",  "ip",
    "route",  "portForward", "script",    "downscript", "backenddomain", "target",    "guest", "model",
    "driver", "backend",     "filterref", "tune",       "teaming",       "link",      "mtu",   "coalesce",
    "boot",   "alias",       "master",    "rom",        "acpi",          "address"};
inline constexpr std::string_view kInterfaceSourceAttributes[] = {"network",         "portgroup", "portid", "bridge",
                                                                  "macTableManager", "dev",       "mode"};
inline constexpr std::string_view kBackendAttributes[] = {"type", "tap", "vhost", "logFile"};
inline constexpr std::string_view kConsole[] = {"source", "protocol", "log",  "target", "alias",
                                                "master", "rom",      "acpi", "address"};
inline constexpr std::string_view kHostdev[] = {"driver",   "source",    "ip",     "route", "teaming",
                                                "readonly", "shareable", "boot",   "alias", "master",
                                                "rom",      "acpi",      "address"};

}  // namespace virtuserns::xml::order
