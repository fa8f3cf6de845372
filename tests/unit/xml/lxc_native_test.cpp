#include "xml/lxc_native.h"

#include <gtest/gtest.h>

#include "conf/defaults.h"
#include "conf/validate.h"

namespace virtuserns::xml {
namespace {

constexpr char kBase[] = "lxc.uts.name = web\nlxc.rootfs.path = dir:/srv/web\n";

LxcImport imported(const std::string& text) {
  auto result = parse_lxc_config(kBase + text);
  EXPECT_TRUE(result) << result.error().text;
  return result ? std::move(*result) : LxcImport{};
}

std::string error_of(const std::string& text) {
  const auto result = parse_lxc_config(text);
  return result ? "accepted" : result.error().text;
}

TEST(LxcNative, AStockConfigurationBecomesAValidDomain) {
  auto import = imported(
      "# Distribution configuration\nlxc.include = /usr/share/lxc/config/debian.common.conf\nlxc.arch = amd64\n"
      "lxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\nlxc.net.0.flags = up\nlxc.net.0.hwaddr = 00:16:3e:xx:xx:xx\n"
      "lxc.net.0.name = eth0\nlxc.net.0.ipv4.address = 10.0.3.5/24 10.0.3.255\nlxc.net.0.ipv4.gateway = 10.0.3.1\n"
      "lxc.net.0.script.up = /bin/true\nlxc.hook.pre-start = /bin/x\nlxc.apparmor.profile = generated\nlxc.tty.max = "
      "4\n"
      "lxc.mount.entry = proc proc proc nodev 0 0\nlxc.mount.entry = /home/me srv/my\\040files none "
      "bind,ro,create=dir 0 0\n"
      "lxc.mount.entry = tmpfs /srv/web/run tmpfs size=8m,mode=0755 0 0\nlxc.mount.entry = /dev/sdb1 mnt ext4 "
      "defaults 0 0\n");
  EXPECT_EQ(import.ignored, (std::vector<std::string>{"line 4: key 'lxc.include' is not imported",
                                                      "line 13: key 'lxc.net.0.script.up' is not imported",
                                                      "line 14: key 'lxc.hook.pre-start' is not imported",
                                                      "line 15: key 'lxc.apparmor.profile' is not imported"}));
  auto& def = import.def;
  apply_defaults(def, {"x86_64", "/controller"});
  const auto verdict = validate(def);
  EXPECT_TRUE(verdict) << verdict.error().text;
  ASSERT_EQ(def.filesystems.size(), 4u);
  EXPECT_EQ(def.filesystems[0].source, "/srv/web");
  EXPECT_EQ(def.filesystems[1].target, "/srv/my files");
  EXPECT_TRUE(def.filesystems[1].readonly);
  EXPECT_EQ(def.filesystems[2].target, "/run");
  EXPECT_EQ(def.filesystems[2].ram_usage_kib, 8192u);
  EXPECT_EQ(def.filesystems[3].type, FilesystemType::kBlock);
  ASSERT_EQ(def.interfaces.size(), 1u);
  EXPECT_EQ(def.interfaces[0].source, "lxcbr0");
  EXPECT_EQ(def.interfaces[0].link_state, LinkState::kUp);
  EXPECT_EQ(def.interfaces[0].ips[0].prefix, 24u);
  EXPECT_EQ(def.interfaces[0].routes[0].gateway, "10.0.3.1");
  EXPECT_EQ(def.consoles.size(), 4u);
}

// Container ids first, host ids second: libvirt 9.0 has it the other way round.
TEST(LxcNative, IdMapsKeepTheirOrder) {
  for (const std::string key : {"lxc.idmap", "lxc.id_map"}) {
    const auto def =
        imported(key + " = u 0 2000000 65536\n" + key + " = g 0 3000000 65536\n" + key + " = g 70000 5 1\n").def;
    EXPECT_EQ(def.idmap.uid, (std::vector<IdMapEntry>{{0, 2000000, 65536}}));
    EXPECT_EQ(def.idmap.gid, (std::vector<IdMapEntry>{{0, 3000000, 65536}, {70000, 5, 1}}));
    EXPECT_TRUE(validate_idmap(def.idmap));
  }
}

TEST(LxcNative, LimitsAndCapabilities) {
  const auto def =
      imported(
          "lxc.cgroup.memory.limit_in_bytes = 512M\nlxc.cgroup2.memory.swap.max = 1G\nlxc.cgroup2.cpu.max = 50000 "
          "100000\n"
          "lxc.cgroup.cpu.shares = 512\nlxc.cgroup.cpuset.cpus = 0-1,3\nlxc.cgroup.cpuset.mems = "
          "0\nlxc.cgroup2.pids.max = 300\n"
          "lxc.cgroup.blkio.weight = 500\nlxc.cgroup.blkio.throttle.read_bps_device = 8:0 1000\n"
          "lxc.cgroup.blkio.device_weight = 8:0 200\nlxc.cap.drop = sys_module mac_admin\nlxc.cap.drop = sys_time\n")
          .def;
  EXPECT_EQ(def.max_memory_kib, 524288u);
  EXPECT_EQ(def.memtune.swap_hard_limit_kib, 524288u + 1048576u);
  EXPECT_EQ(def.cputune.quota_us, 50000);
  EXPECT_EQ(def.cputune.period_us, 100000u);
  EXPECT_EQ(def.cputune.shares, 512u);
  EXPECT_EQ(def.vcpu.cpuset, "0-1,3");
  EXPECT_EQ(def.numatune.nodeset, "0");
  EXPECT_EQ(def.userns.pids_limit, 300u);
  EXPECT_EQ(def.blkio.weight, 500u);
  ASSERT_EQ(def.blkio.devices.size(), 1u);
  EXPECT_EQ(def.blkio.devices[0], (BlkioDevice{.path = "/dev/block/8:0", .weight = 200, .read_bytes = 1000}));
  EXPECT_EQ(def.features.capabilities,
            (std::map<std::string, bool>{{"sys_module", false}, {"mac_admin", false}, {"sys_time", false}}));
}

TEST(LxcNative, OldNetworksAndOtherTypes) {
  const auto import = imported(
      "lxc.network.type = veth\nlxc.network.hwaddr = 00:16:3E:01:02:03\nlxc.network.type = macvlan\nlxc.network.link "
      "= eth0\n"
      "lxc.network.macvlan.mode = bridge\nlxc.network.type = vlan\nlxc.network.link = eth1\nlxc.network.vlan.id = 2\n"
      "lxc.network.type = none\nlxc.network.type = ipvlan\n");
  ASSERT_EQ(import.def.interfaces.size(), 2u);
  EXPECT_EQ(import.def.interfaces[0].type, InterfaceType::kEthernet);
  EXPECT_EQ(import.def.interfaces[0].mac, (MacAddress{{0, 0x16, 0x3e, 1, 2, 3}}));
  EXPECT_EQ(import.def.interfaces[1].direct_mode, "bridge");
  ASSERT_EQ(import.def.hostdevs.size(), 1u);
  EXPECT_EQ(import.def.hostdevs[0].source, "eth1.2");
  EXPECT_EQ(import.ignored,
            (std::vector<std::string>{
                "network 4: type 'none' shares the host's network, which a domain cannot: it gets one of its own",
                "network 5: type 'ipvlan' is not imported"}));
  EXPECT_TRUE(imported("").def.features.privnet);
}

TEST(LxcNative, InitAndEnvironment) {
  const auto def =
      imported(
          "lxc.init.cmd = \"/sbin/init --a b\"\nlxc.init.cwd = /srv\nlxc.init.uid = 1000\nlxc.init.gid = 1001\n"
          "lxc.environment = A=b=c\n")
          .def;
  EXPECT_EQ(def.os.init, "/sbin/init");
  EXPECT_EQ(def.os.init_args, (std::vector<std::string>{"--a", "b"}));
  EXPECT_EQ(def.os.init_user + def.os.init_group, "+1000+1001");
  EXPECT_EQ(def.os.init_env, (std::vector<InitEnv>{{"A", "b=c"}}));
}

TEST(LxcNative, RefusesWithTheLine) {
  EXPECT_EQ(error_of("lxc.uts.name web\n"), "line 1: 'lxc.uts.name web' is not 'key = value'");
  EXPECT_EQ(error_of("lxc.uts.name = web\n"), "the configuration has no root filesystem: set lxc.rootfs.path");
  EXPECT_EQ(error_of("lxc.rootfs = /srv\n"), "the configuration has no name: set lxc.uts.name");
  EXPECT_EQ(error_of("\nlxc.idmap = u 0 5\n"), "line 2: id map 'u 0 5' is not 'u|g CONTAINER-ID HOST-ID COUNT'");
  EXPECT_EQ(error_of("lxc.idmap = x 0 5 5\n"), "line 1: id map 'x 0 5 5' is not 'u|g CONTAINER-ID HOST-ID COUNT'");
  EXPECT_EQ(error_of("lxc.tty.max = 1000000000\n"), "line 1: number of terminals '1000000000' is not from 0 to 64");
  EXPECT_EQ(error_of("lxc.mount.entry = a b\n"), "line 1: mount entry 'a b' has not the four fields of fstab");
  EXPECT_EQ(error_of("lxc.net.0.ipv4 = 1.2.3\n"), "line 1: address '1.2.3' is not an ipv4 address with prefix");
  EXPECT_EQ(error_of(std::string("\xff")), "the configuration is not valid UTF-8");
  EXPECT_EQ(error_of(std::string(1048577, '#')), "the configuration has more than 1 MiB");
}

}  // namespace
}  // namespace virtuserns::xml
