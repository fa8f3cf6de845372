#include "conf/validate.h"

#include <gtest/gtest.h>

#include <functional>

#include "conf/capability_names.h"
#include "conf/defaults.h"

namespace virtuserns {
namespace {

DomainDef good() {
  DomainDef def;
  def.name = "web";
  def.max_memory_kib = 65536;
  FilesystemDef root;
  root.source = "/srv/web";
  root.target = "/";
  def.filesystems.push_back(root);
  apply_defaults(def, {"x86_64", "/controller"});
  return def;
}

FilesystemDef filesystem(const std::string& target, FilesystemType type = FilesystemType::kMount) {
  FilesystemDef fs;
  fs.type = type;
  fs.source = "/srv/x";
  fs.target = target;
  return fs;
}

InterfaceDef bridge(MacAddress mac = {{0x52, 0x54, 0, 0, 0, 1}}) {
  InterfaceDef interface;
  interface.source = "br0";
  interface.mac = mac;
  return interface;
}

InterfaceDef user_link(std::vector<PortForwardDef> forwards) {
  auto interface = bridge();
  interface.type = InterfaceType::kUser;
  interface.source.clear();
  interface.port_forwards = std::move(forwards);
  return interface;
}

DiskDef disk(const std::string& target, const std::string& source = "/dev/sda") {
  DiskDef d;
  d.type = DiskType::kBlock;
  d.source = source;
  d.target_dev = target;
  return d;
}

struct Case {
  std::function<void(DomainDef&)> change;
  int code;
  std::string text;
};

TEST(Validate, AcceptsAPlainDomain) { EXPECT_TRUE(validate(good())); }

TEST(Validate, Domain) {
  const Case cases[] = {
      {[](auto& d) { d.virt_type = "kvm"; }, VIR_ERR_CONFIG_UNSUPPORTED,
       "domain type 'kvm' is not supported: use <domain type='lxc'>"},
      {[](auto& d) { d.uuid = {}; }, VIR_ERR_XML_ERROR,
       "uuid '00000000-0000-0000-0000-000000000000' must not have all bytes equal"},
      {[](auto& d) { d.title = "a\nb"; }, VIR_ERR_XML_ERROR, "<title> must be one line: use <description> for more"},
      {[](auto& d) { d.max_memory_kib = 0; }, VIR_ERR_XML_ERROR,
       "memory size must be specified: write <memory unit='MiB'>512</memory>, above 0"},
      {[](auto& d) { d.max_memory_kib = std::uint64_t{1} << 60; }, VIR_ERR_OVERFLOW, "<memory> is too large"},
      {[](auto& d) { d.vcpu.max = 0; }, VIR_ERR_XML_ERROR, "<vcpu> is 0: at least 1 is needed"},
      {[](auto& d) { d.vcpu.max = 100000; }, VIR_ERR_XML_ERROR, "<vcpu> is 100000: at most 16384 are possible"},
      {[](auto& d) { d.vcpu.current = 2; }, VIR_ERR_XML_ERROR, "current='2' of <vcpu> must be from 1 to 1"},
      {[](auto& d) { d.memtune.hard_limit_kib = 0; }, VIR_ERR_XML_ERROR,
       "<hard_limit> of <memtune> is 0: nothing could run, raise it or remove it"},
      {[](auto& d) {
         d.memtune.hard_limit_kib = 2;
         d.memtune.swap_hard_limit_kib = 1;
       },
       VIR_ERR_XML_ERROR, "<swap_hard_limit> counts memory and swap together: it must not be below <hard_limit>"},
      {[](auto& d) { d.cputune.period_us = 10; }, VIR_ERR_XML_ERROR,
       "<period> 10 of <cputune> must be from 1000 to 1000000 microseconds"},
      {[](auto& d) { d.cputune.quota_us = 10; }, VIR_ERR_XML_ERROR,
       "<quota> 10 of <cputune> must be from 1000 to 17592186044415 microseconds, or negative"},
      {[](auto& d) { d.blkio.weight = 5; }, VIR_ERR_XML_ERROR, "<weight> 5 of <blkiotune> must be from 10 to 1000"},
      {[](auto& d) {
         d.blkio.devices = {{.path = "/dev/sda"}, {.path = "/dev/sda"}};
       },
       VIR_ERR_XML_ERROR, "<blkiotune> names device '/dev/sda' twice"},
      {[](auto& d) { d.blkio.devices = {{.path = "sda"}}; }, VIR_ERR_XML_ERROR,
       "<path> of <blkiotune> 'sda' must be an absolute path"},
      {[](auto& d) { d.resource.partition = "machine"; }, VIR_ERR_XML_ERROR,
       "<partition> 'machine' must be an absolute path"},
      {[](auto& d) { d.resource.partition = "/machine/../x"; }, VIR_ERR_XML_ERROR,
       "<partition> '/machine/../x' has an empty, '.' or '..' part: write it as '/machine/web'"},
      {[](auto& d) { d.resource.partition = "/machine//x"; }, VIR_ERR_XML_ERROR,
       "<partition> '/machine//x' has an empty, '.' or '..' part: write it as '/machine/web'"},
      {[](auto& d) { d.os.type = "hvm"; }, VIR_ERR_CONFIG_UNSUPPORTED,
       "os type 'hvm' is not supported: containers have <type>exe</type>"},
      {[](auto& d) { d.os.arch = "pdp11"; }, VIR_ERR_CONFIG_UNSUPPORTED, "unknown architecture 'pdp11'"},
      {[](auto& d) { d.os.init = "sbin/init"; }, VIR_ERR_XML_ERROR, "<init> 'sbin/init' must be an absolute path"},
      {[](auto& d) { d.os.init_dir = "srv"; }, VIR_ERR_XML_ERROR, "<initdir> 'srv' must be an absolute path"},
      {[](auto& d) {
         d.os.init_env = {{"A=B", "c"}};
       },
       VIR_ERR_XML_ERROR, "<initenv> name 'A=B' is not a valid environment variable name"},
      {[](auto& d) { d.os.init_user = "a:b"; }, VIR_ERR_XML_ERROR,
       "<inituser> 'a:b' is not a valid name: use a name or '+1000' for a number"},
      {[](auto& d) {
         d.idmap.uid = {{0, 1, 1}};
       },
       VIR_ERR_XML_ERROR, "idmap: there are <uid> entries but no <gid> entry: both must be mapped"},
      {[](auto& d) {
         d.features.capabilities = {{"fly", true}};
       },
       VIR_ERR_CONFIG_UNSUPPORTED,
       "unknown capability 'fly': write it as 'net_admin', as in capabilities(7) without CAP_"},
      {[](auto& d) {
         d.shared_namespaces = {{"shareipc", "netns", "x"}};
       },
       VIR_ERR_CONFIG_UNSUPPORTED, "<lxc:shareipc> cannot have type 'netns': use 'name' or 'pid'"},
      {[](auto& d) {
         d.shared_namespaces = {{"sharenet", "netns", "../x"}};
       },
       VIR_ERR_XML_ERROR, "network namespace '../x' must be a name below /run/netns"},
      {[](auto& d) {
         d.shared_namespaces = {{"sharenet", "pid", "1x"}};
       },
       VIR_ERR_XML_ERROR, "<lxc:sharenet> value '1x' is not a process id"},
      {[](auto& d) {
         d.shared_namespaces = {{"sharenet", "name", "a"}};
         d.interfaces = {bridge()};
       },
       VIR_ERR_CONFIG_UNSUPPORTED,
       "<lxc:sharenet> cannot be combined with <interface>: the network is the other domain's"},
  };
  for (const auto& c : cases) {
    auto def = good();
    c.change(def);
    const auto result = validate(def);
    ASSERT_FALSE(result) << c.text;
    EXPECT_EQ(result.error().text, c.text);
    EXPECT_EQ(result.error().code, c.code) << c.text;
  }
}

TEST(Validate, FilesystemsDoNotCoverProcSysAndDev) {
  for (const char* target :
       {"/proc", "//proc/", "/./proc", "/proc/sys", "/proc/kcore", "/sys", "/sys/firmware", "/sys/fs", "/sys/fs/bpf",
        "/sys/fs/cgroups", "/dev", "/dev/.", "/dev/pts", "/dev//pts/0"}) {
    auto def = good();
    def.filesystems.push_back(filesystem(target));
    const auto result = validate(def);
    ASSERT_FALSE(result) << target;
    EXPECT_EQ(result.error().code, VIR_ERR_CONFIG_UNSUPPORTED) << target;
    EXPECT_NE(result.error().text.find("filesystem target '" + std::string(target) + "' is not supported: "),
              std::string::npos)
        << result.error().text;
    EXPECT_NE(result.error().text.find("use a target outside of them"), std::string::npos) << result.error().text;
  }
  for (const char* target : {"/process", "/system", "/devices", "/srv/proc", "/dev/shm", "/dev/hugepages",
                             "/dev/ptsx", "/sys/fs/cgroup", "/sys/fs/cgroup/systemd"}) {
    auto def = good();
    def.filesystems.push_back(filesystem(target));
    EXPECT_TRUE(validate(def)) << target;
  }
}

TEST(Validate, WhatAnOverlayLiesOverIsNotWritten) {
  const auto over = [](const std::string& lower) {
    auto def = good();  // with the source /srv/web
    def.userns.overlays = {{"/", {"/srv/top", lower}}};
    return def;
  };
  EXPECT_TRUE(validate(over("/srv/webbase")));
  for (const char* lower : {"/srv/web", "/srv/./web//", "/srv", "/srv/web/upper"}) {
    const auto result = validate(over(lower));
    ASSERT_FALSE(result) << lower;
    EXPECT_EQ(result.error().text, "'" + std::string(lower) +
                                       "' of <userns:overlay> and a source that the domain writes to are in one "
                                       "another: what is written needs a directory of its own");
  }
  auto def = over("/srv/base");
  def.filesystems.push_back(filesystem("/data"));
  def.filesystems.back().source = "/srv/base/data";
  EXPECT_FALSE(validate(def));
  def.filesystems.back().readonly = true;
  EXPECT_TRUE(validate(def));
  // An overlay writes, at least 'work', also where it is mounted read-only.
  def.userns.overlays.push_back({"/data", {"/srv/other"}});
  EXPECT_FALSE(validate(def));
  def.userns.overlays = {{"/", {"/srv/base"}}};
  auto writer = good();
  writer.filesystems[0].source = "/srv/another";
  EXPECT_EQ(find_written_base(def, writer), std::nullopt);
  writer.filesystems[0].source = "/srv/base";
  EXPECT_EQ(find_written_base(def, writer), "/srv/base");
  EXPECT_EQ(find_written_base(writer, def), std::nullopt);
  // What an overlay writes is not written as it is, by whoever.
  for (const char* source : {"/srv/web", "/srv/web/upper"}) {
    writer.filesystems[0].source = source;
    EXPECT_EQ(find_written_base(def, writer), "/srv/web");
  }
  writer.filesystems[0].readonly = true;
  EXPECT_EQ(find_written_base(def, writer), std::nullopt);
  auto both = def;
  both.filesystems.push_back(filesystem("/mine"));
  both.filesystems.back().source = "/srv/web/upper";
  EXPECT_FALSE(validate(both));
  // One that nothing lies at is told.
  def.userns.overlays.push_back({"/none", {"/srv/base"}});
  EXPECT_EQ(unused_overlays(def), std::vector<std::string>{"/none"});
}

TEST(Validate, Devices) {
  const Case cases[] = {
      {[](auto& d) { d.filesystems.clear(); }, VIR_ERR_XML_ERROR,
       "domain has no root filesystem: add <filesystem type='mount'><source dir='/path/to/root'/><target "
       "dir='/'/></filesystem>"},
      {[](auto& d) { d.filesystems.push_back(filesystem("//.")); }, VIR_ERR_XML_ERROR,
       "filesystem target '/' appears twice"},
      {[](auto& d) {
         d.filesystems.push_back(filesystem("/a/b"));
         d.filesystems.push_back(filesystem("/a//b/"));
       },
       VIR_ERR_XML_ERROR, "filesystem target '/a/b' appears twice"},
      {[](auto& d) { d.filesystems.push_back(filesystem("")); }, VIR_ERR_XML_ERROR,
       "<filesystem> has no target: write <target dir='/'/>"},
      {[](auto& d) { d.filesystems.push_back(filesystem("etc")); }, VIR_ERR_XML_ERROR,
       "filesystem target 'etc' must be an absolute path"},
      {[](auto& d) { d.filesystems.push_back(filesystem("/a/../b")); }, VIR_ERR_XML_ERROR,
       "filesystem target '/a/../b' must not have '..' in it"},
      {[](auto& d) { d.filesystems[0].source = "srv"; }, VIR_ERR_XML_ERROR,
       "source of filesystem '/' 'srv' must be an absolute path"},
      {[](auto& d) { d.filesystems.push_back(filesystem("/t", FilesystemType::kTemplate)); },
       VIR_ERR_CONFIG_UNSUPPORTED, "filesystem type 'template' is not supported: use mount, file, block or ram"},
      {[](auto& d) { d.filesystems.push_back(filesystem("/t", FilesystemType::kVolume)); },
       VIR_ERR_CONFIG_UNSUPPORTED, "filesystem type 'volume' is not supported: use mount, file, block or ram"},
      {[](auto& d) { d.filesystems.push_back(filesystem("/t", FilesystemType::kRam)); }, VIR_ERR_XML_ERROR,
       "filesystem '/t' of type ram has size 0"},
      {[](auto& d) {
         d.disks = {disk("vda"), disk("vda")};
       },
       VIR_ERR_XML_ERROR, "disk target 'vda' appears twice"},
      {[](auto& d) { d.disks = {disk("../vda")}; }, VIR_ERR_XML_ERROR,
       "disk target '../vda' must be a name below /dev, such as 'vda'"},
      {[](auto& d) { d.disks = {disk("vda", "")}; }, VIR_ERR_XML_ERROR, "disk 'vda' has no source"},
      {[](auto& d) { d.disks = {disk("vda", "x")}; }, VIR_ERR_XML_ERROR,
       "source of disk 'vda' 'x' must be an absolute path"},
      {[](auto& d) {
         d.interfaces = {bridge({{1, 0, 0, 0, 0, 1}})};
       },
       VIR_ERR_XML_ERROR, "MAC address of <interface> is a multicast address: its first byte must be even"},
      {[](auto& d) {
         d.interfaces = {user_link({{"tcp", "", "", {{80, 79}}}})};
       },
       VIR_ERR_XML_ERROR, "<range start='80'> of <portForward> ends at 79, before its start"},
      {[](auto& d) {
         d.interfaces = {user_link({{"tcp", "", "", {{1000, 1010, 65530}}}})};
       },
       VIR_ERR_XML_ERROR, "<range start='1000'> of <portForward> leads to ports above 65535"},
      {[](auto& d) {
         d.interfaces = {user_link({{"tcp", "", "", {{80, {}, 81, true}}}})};
       },
       VIR_ERR_XML_ERROR, "<range start='80'> of <portForward> is excluded and leads to a port: give one of the two"},
      {[](auto& d) { d.interfaces = {user_link({{"udp"}})}; }, VIR_ERR_CONFIG_UNSUPPORTED,
       "<portForward proto='udp'> forwards no port: name them in <range start='' end='' to=''/>, also where all are meant"},
      {[](auto& d) {
         d.interfaces = {user_link({{"tcp", "192.0.2.1", "", {{80}}}, {"tcp", "", "", {{79, 81}}}})};
       },
       VIR_ERR_XML_ERROR, "tcp port 80 of the host is forwarded twice by one <interface>"},
      {[](auto& d) {
         d.interfaces = {user_link({{"tcp", "", "", {{1, 1025}}}})};
       },
       VIR_ERR_CONFIG_UNSUPPORTED, "<portForward> forwards more than 1024 ports of an interface"},
      {[](auto& d) {
         d.interfaces = {bridge()};
         d.interfaces[0].port_forwards = {{"tcp", "", "", {{80}}}};
       },
       VIR_ERR_CONFIG_UNSUPPORTED,
       "<portForward> is for <interface type='user'>: what is in a bridge has an address of its own"},
      {[](auto& d) {
         d.interfaces = {bridge()};
         d.interfaces[0].backend = "passt";
       },
       VIR_ERR_CONFIG_UNSUPPORTED, "<backend type='passt'> and its logFile are for <interface type='user'>"},
      {[](auto& d) {
         d.interfaces = {user_link({})};
         d.interfaces[0].backend_log = "passt.log";
       },
       VIR_ERR_XML_ERROR, "logFile of <backend type='passt'> 'passt.log' must be an absolute path"},
      {[](auto& d) {
         d.interfaces = {user_link({})};
         d.interfaces[0].guest_dev = "fifteen-letters";
       },
       VIR_ERR_CONFIG_UNSUPPORTED,
       "guest name 'fifteen-letters' of <interface type='user'>: passt makes names of at most 14 characters"},
      {[](auto& d) { d.interfaces = {bridge(MacAddress{})}; }, VIR_ERR_XML_ERROR,
       "MAC address of <interface> is 00:00:00:00:00:00"},
      {[](auto& d) {
         d.interfaces = {bridge(), bridge()};
       },
       VIR_ERR_XML_ERROR, "two interfaces have the same MAC address"},
      {[](auto& d) {
         d.interfaces = {bridge()};
         d.interfaces[0].kept = {{"script", "<script path='/x'/>"}};
       },
       VIR_ERR_CONFIG_UNSUPPORTED,
       "<script> of <interface> is not supported: the host runs no scripts for containers"},
      {[](auto& d) {
         d.interfaces = {bridge()};
         d.interfaces[0].guest_dev = "a-name-too-long-for-linux";
       },
       VIR_ERR_XML_ERROR,
       "guest name of <interface> 'a-name-too-long-for-linux' is not a valid interface name: at most 15 characters, "
       "no '/', ':' or blank"},
      {[](auto& d) {
         d.interfaces = {bridge()};
         d.interfaces[0].source = "";
       },
       VIR_ERR_XML_ERROR, "<interface> has no source"},
      {[](auto& d) {
         d.interfaces = {bridge()};
         d.interfaces[0].mtu = 1;
       },
       VIR_ERR_XML_ERROR, "<mtu> of <interface> must be at least 68"},
      {[](auto& d) {
         d.interfaces = {bridge(), bridge({{2, 0, 0, 0, 0, 2}})};
         d.interfaces[0].guest_dev = d.interfaces[1].guest_dev = "eth0";
       },
       VIR_ERR_XML_ERROR, "guest name 'eth0' of <interface> appears twice"},
      {[](auto& d) {
         d.interfaces = {bridge(), bridge({{2, 0, 0, 0, 0, 2}})};
         d.interfaces[0].target_dev = d.interfaces[1].target_dev = "x0";
       },
       VIR_ERR_XML_ERROR, "target 'x0' of <interface> appears twice"},
      {[](auto& d) { d.consoles[0].type = "tcp"; }, VIR_ERR_CONFIG_UNSUPPORTED,
       "console type 'tcp' is not supported: use type='pty'"},
      {[](auto& d) { d.consoles[0].target_type = "virtio"; }, VIR_ERR_CONFIG_UNSUPPORTED,
       "console target type 'virtio' is not supported: use <target type='lxc'/>"},
      {[](auto& d) { d.consoles[0].log_file = "log"; }, VIR_ERR_XML_ERROR,
       "log file of <console> 'log' must be an absolute path"},
      {[](auto& d) { d.hostdevs = {{.source = "js0"}}; }, VIR_ERR_XML_ERROR,
       "source of <hostdev> 'js0' must be an absolute path"},
      {[](auto& d) { d.hostdevs = {{.source = "/dev/../etc"}}; }, VIR_ERR_XML_ERROR,
       "source of <hostdev> '/dev/../etc' must not have '..' in it"},
      {[](auto& d) {
         d.kept_devices = {{"interface", "<interface type='vhostuser'>\n</interface>"}};
       },
       VIR_ERR_CONFIG_UNSUPPORTED, "<interface> of type 'vhostuser' is not supported by containers"},
  };
  for (const auto& c : cases) {
    auto def = good();
    c.change(def);
    const auto result = validate(def);
    ASSERT_FALSE(result) << c.text;
    EXPECT_EQ(result.error().text, c.text);
    EXPECT_EQ(result.error().code, c.code) << c.text;
  }
}

TEST(Validate, Names) {
  const std::vector<std::string> good_names = {
      "web", "web.1", "a b", "-x", "\xc3\xa9t\xc3\xa9", "...", std::string(250, 'n')};
  for (const auto& name : good_names) EXPECT_TRUE(validate_name(name)) << name;
  const std::pair<std::string, std::string> cases[] = {
      {"", "domain name must not be empty"},
      {" \t", "domain name must not be empty"},
      {".", "domain name must not be '.'"},
      {"..", "domain name must not be '..'"},
      {"a/b", "domain name 'a/b' must not have a '/' in it"},
      {"a\nb", "domain name 'a\\x0ab' must not have control characters in it"},
      {"a\x7f", "domain name 'a\\x7f' must not have control characters in it"},
      {"a\xff", "domain name 'a\\xff' is not valid UTF-8"},
      {std::string(251, 'n'), "domain name 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...' has 251 bytes: at most 250"},
  };
  for (const auto& [name, text] : cases) EXPECT_EQ(validate_name(name).error().text, text);
}

TEST(Capabilities, AreAllOfLinux) {
  EXPECT_EQ(std::size(kCapabilityNames), 41u);  // CAP_LAST_CAP + 1 since Linux 5.9
  EXPECT_TRUE(is_capability_name("checkpoint_restore"));
  EXPECT_FALSE(is_capability_name("CAP_CHOWN"));
}

TEST(Unhonoured, OneLineEach) {
  auto def = good();
  EXPECT_EQ(unhonoured(def), std::vector<std::string>());
  def.kept = {{"cpu", "<cpu/>"}, {"genid", "<genid/>"}, {"memory/@dumpCore", "off"}};
  def.cputune.kept = {{"vcpupin", "<vcpupin vcpu='0' cpuset='1'/>"},
                      {"emulatorpin", "<emulatorpin/>"}};  // vcpu_pins reads the first
  def.clock.timers = {{.name = "tsc"}, {.name = "rtc"}};
  def.filesystems[0].kept = {{"@multidevs", "remap"}, {"driver/@queue", "1"}};
  def.kept_devices = {{"tpm", "<tpm/>"}};
  EXPECT_EQ(
      unhonoured(def),
      (std::vector<std::string>{
          "element <cpu> is kept but has no effect", "attribute 'dumpCore' of <memory> is kept but has no effect",
          "cputune: element <emulatorpin> is kept but has no effect", "clock: timer 'tsc' has no effect",
          "filesystem '/': attribute 'multidevs' is kept but has no effect",
          "filesystem '/': attribute 'queue' of <driver> is kept but has no effect",
          "devices: element <tpm> is kept but has no effect"}));
}

TEST(Defaults, FillWhatIsMissingAndNothingElse) {
  DomainDef def;
  def.name = "web";
  def.max_memory_kib = 100;
  def.current_memory_kib = 200;
  def.interfaces.emplace_back();
  def.disks = {disk("sdb"), disk("vda"), disk("sda"), disk("hda"), disk("fda")};
  def.idmap.uid = {{5, 1, 1}, {0, 2, 5}};
  apply_defaults(def, {"aarch64", "/controller"});
  EXPECT_TRUE(is_valid_uuid(def.uuid));
  EXPECT_EQ(def.current_memory_kib, 100u);
  EXPECT_EQ(def.os.arch, "aarch64");
  EXPECT_EQ(def.os.init, "/sbin/init");
  EXPECT_EQ(def.emulator, "/controller");
  EXPECT_EQ(def.consoles.size(), 1u);
  EXPECT_EQ(def.idmap.uid[0].start, 0u);
  EXPECT_EQ(
      (std::vector<std::uint8_t>(def.interfaces[0].mac->bytes.begin(), def.interfaces[0].mac->bytes.begin() + 3)),
      (std::vector<std::uint8_t>{0x52, 0x54, 0}));
  std::string disks;
  for (const auto& d : def.disks) disks += d.target_dev + ":" + d.target_bus + " ";
  EXPECT_EQ(disks, "sda:scsi sdb:scsi vda:virtio hda:ide fda:ide ");
  const auto once = def;
  apply_defaults(def, {"x86_64", "/other"});
  EXPECT_EQ(def, once);
}

TEST(Defaults, OfADevice) {
  DeviceDef device = InterfaceDef{};
  apply_device_defaults(device, good());
  EXPECT_TRUE(std::get<InterfaceDef>(device).mac);
  device = ConsoleDef{};
  apply_device_defaults(device, good());
  EXPECT_EQ(std::get<ConsoleDef>(device).target_port, 1u);
}

TEST(Validate, GroupsOfIds) {
  for (const char* name : {"a", "nova-0123456789abcdef0123456789abcdef", "A_b-9"})
    EXPECT_TRUE(validate_id_group(name)) << name;
  for (const std::string& name :
       {std::string(), std::string("-a"), std::string("_a"), std::string("a.b"), std::string("a/b"),
        std::string("a b"), std::string("\xc3\xa4"), std::string("a\0b", 3), std::string(65, 'a')}) {
    const auto refused = validate_id_group(name);
    ASSERT_FALSE(refused) << name;
    EXPECT_EQ(refused.error().code, VIR_ERR_XML_ERROR);
  }
  EXPECT_TRUE(validate_id_group(std::string(64, 'a')));
  DomainDef def = good();
  def.userns.id_group = "shop";
  EXPECT_TRUE(validate(def));
  def.idmap.uid = def.idmap.gid = {{0, 3'000'000, 1000}};
  EXPECT_TRUE(validate(def));
  def.idmap.uid = def.idmap.gid = {{0, std::nullopt, 1000}};
  ASSERT_FALSE(validate(def));
  EXPECT_NE(validate(def).error().text.find("<userns:ids group='shop'>: <idmap> has lines without a target"),
            std::string::npos);
  def.idmap = {};
  def.userns.owner = OwnerDef{"anna", {}, false};
  ASSERT_FALSE(validate(def));
  EXPECT_NE(validate(def).error().text.find("cannot be combined with <userns:owner>"), std::string::npos);
}

}  // namespace
}  // namespace virtuserns
