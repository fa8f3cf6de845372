// What the golden files cannot show: refusals, and what is forgotten or hidden.
#include "xml/domain.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "conf/defaults.h"

namespace virtuserns::xml {
namespace {

std::string domain(const std::string& inside) {
  return "<domain type='lxc'>\n<name>web</name>\n" + inside + "\n</domain>";
}
std::string devices(const std::string& inside) { return domain("<devices>" + inside + "</devices>"); }

std::string error_of(const std::string& text, unsigned flags = kParseInactive) {
  const auto def = parse_domain(text, flags);
  return def ? "accepted" : def.error().text;
}

TEST(ParseDomain, RefusesWithTheLineAndTheRemedy) {
  const std::pair<std::string, std::string> cases[] = {
      {"<network/>", "line 1: unexpected root element <network>: <domain> is needed"},
      {"<domain><name>x</name></domain>", "line 1: <domain> has no type: write <domain type='lxc'>"},
      {"<domain type='lxc'/>", "line 1: <domain> has no <name>"},
      {domain("<name>two</name>"), "line 3: element <name> appears more than once in <domain>"},
      {domain("<uuid>x</uuid>"), "line 3: invalid uuid 'x'"},
      {domain("<memory>much</memory>"), "line 3: invalid size 'much' in <memory>: a whole number is needed"},
      {domain("<memory unit='kilo'>1</memory>"), "line 3: unknown unit 'kilo' in <memory>"},
      {domain("<memory unit='EiB'>16</memory>"), "line 3: size '16' in <memory> is too large"},
      {domain("<memory>-1</memory>"), "line 3: invalid size '-1' in <memory>: a whole number is needed"},
      {domain("<vcpu>many</vcpu>"), "line 3: invalid value 'many' in <vcpu>: a whole number is needed"},
      {domain("<vcpu placement='here'>1</vcpu>"), "line 3: unknown vcpu placement 'here': known are static, auto"},
      {domain("<vcpu cpuset='3-1'>1</vcpu>"),
       "line 3: invalid value '3-1' for attribute 'cpuset' of <vcpu>: a list such as '0-3,^2' is needed"},
      {domain("<vcpu cpuset='0,^0'>1</vcpu>"),
       "line 3: invalid value '0,^0' for attribute 'cpuset' of <vcpu>: a list such as '0-3,^2' is needed"},
      {domain("<cputune><shares>-5</shares></cputune>"),
       "line 3: invalid value '-5' in <shares>: a whole number is needed"},
      {domain("<blkiotune><device/></blkiotune>"),
       "line 3: <device> of <blkiotune> has no <path>: name a block device"},
      {domain("<numatune><memory mode='loose' nodeset='0'/></numatune>"),
       "line 3: unknown NUMA memory mode 'loose': known are strict, preferred, interleave, restrictive"},
      {domain("<numatune><memory mode='strict'/></numatune>"),
       "line 3: <memory> of <numatune> has no nodeset: set one, or use placement='auto'"},
      {domain("<os><type>exe</type><initarg/></os>"), "line 3: <initarg> is empty: give it a text or remove it"},
      {domain("<os><initenv>x</initenv></os>"),
       "line 3: <initenv> has no name: write <initenv name='NAME'>value</initenv>"},
      {domain("<os><initenv name='A'/></os>"), "line 3: <initenv name='A'> has no value"},
      {domain("<idmap><uid start='0'/></idmap>"),
       "line 3: <uid> of <idmap> has no count: write <uid start='0' count='65536'/>, with target='' to choose the "
       "host ids"},
      {domain("<idmap><uid start='-1' target='1' count='1'/></idmap>"),
       "line 3: invalid value '-1' for attribute 'start' of <uid>: a whole number is needed"},
      {domain("<idmap><uid start='0' target='4294967296' count='1'/></idmap>"),
       "line 3: invalid value '4294967296' for attribute 'target' of <uid>: a whole number is needed"},
      {domain("<idmap><pid/></idmap>"), "line 3: unknown element <pid> in <idmap>: known are <uid> and <gid>"},
      {domain("<features><capabilities policy='some'/></features>"),
       "line 3: unknown capabilities policy 'some': known are default, allow, deny"},
      {domain("<features><capabilities><mknod/></capabilities></features>"),
       "line 3: capability 'mknod' has no state: write state='on' or state='off'"},
      {domain("<features><capabilities><mknod state='maybe'/></capabilities></features>"),
       "line 3: invalid value 'maybe' for attribute 'state' of <mknod>: 'on' or 'off' is needed"},
      {domain("<features><capabilities><mknod state='on'/><mknod state='off'/></capabilities></features>"),
       "line 3: capability 'mknod' appears twice"},
      {domain("<clock offset='moon'/>"),
       "line 3: unknown clock offset 'moon': known are utc, localtime, variable, timezone, absolute"},
      {domain("<clock><timer/></clock>"), "line 3: <timer> has no name"},
      {domain("<on_reboot>coredump-restart</on_reboot>"),
       "line 3: unknown lifecycle action 'coredump-restart': known are destroy, restart, rename-restart, preserve"},
      {domain("<seclabel type='dynamic' relabel='no'/>"), "line 3: a dynamic seclabel needs relabel='yes'"},
      {domain("<seclabel type='static'/>"), "line 3: a static seclabel needs a <label>"},
      {domain("<seclabel model='a'/><seclabel model='a'/>"), "line 3: a seclabel for model 'a' is already there"},
      {domain("<l:namespace xmlns:l='http://libvirt.org/schemas/domain/lxc/1.0'><l:sharepid/></l:namespace>"),
       "line 3: unknown shared namespace 'sharepid': known are sharenet, shareipc, shareuts"},
      {domain(
           "<l:namespace xmlns:l='http://libvirt.org/schemas/domain/lxc/1.0'><l:sharenet type='pid'/></l:namespace>"),
       "line 3: <lxc:sharenet> has no value"},
      {domain("<metadata><u:domain xmlns:u='urn:virtuserns:domain:1.0'><u:pids/></u:domain></metadata>"),
       "line 3: <userns:pids> needs limit='N' with N above 0"},
      {domain("<metadata><u:domain xmlns:u='urn:virtuserns:domain:1.0'><u:pid limit='1'/></u:domain></metadata>"),
       "line 3: unknown element <pid> in <userns:domain>: known are <userns:pids limit=''/>, "
       "<userns:ids count='' group=''/>, <userns:seccomp>, <userns:image target=''>, <userns:overlay target=''> and "
       "<userns:owner user=''/>"},
      {domain("<metadata><u:dom xmlns:u='urn:virtuserns:domain:1.0'/></metadata>"),
       "line 3: unknown element <userns:dom> in <metadata>: known is <userns:domain>"},
      {domain(
           "<metadata><u:domain xmlns:u='urn:virtuserns:domain:1.0'><u:ids count='1' x='2'/></u:domain></metadata>"),
       "line 3: unknown attribute 'x' in <userns:ids>"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(error_of(text), expected) << text;
}

TEST(ParseDevices, RefusesWithTheLineAndTheRemedy) {
  const std::pair<std::string, std::string> cases[] = {
      {"<filesystem type='tape'/>",
       "line 3: unknown filesystem type 'tape': known are mount, bind, ram, file, block, template, volume"},
      {"<filesystem><target dir='/'/></filesystem>", "line 3: <filesystem type='mount'> needs <source dir=''/>"},
      {"<filesystem type='ram'><target dir='/'/></filesystem>",
       "line 3: <filesystem type='ram'> has no size: write <source usage='65536' units='KiB'/>"},
      {"<filesystem accessmode='open'><source dir='/'/></filesystem>",
       "line 3: unknown filesystem accessmode 'open': known are passthrough, mapped, squash"},
      {"<filesystem><driver type='tape'/><source dir='/'/></filesystem>",
       "line 3: unknown filesystem driver type 'tape': known are path, handle, loop, nbd, ploop, virtiofs"},
      {"<disk type='block'><source dev='/dev/sda'/></disk>",
       "line 3: <disk> has no target: write <target dev='vda'/>"},
      {"<disk type='tape'/>", "line 3: unknown disk type 'tape': known are file, block"},
      {"<interface type='string'/>",
       "line 3: unknown interface type 'string': known are bridge, network, ethernet, direct, user"},
      {"<interface type='bridge'/>", "line 3: <interface type='bridge'> needs <source bridge=''/>"},
      {"<interface type='user'><mac address='52:54'/></interface>",
       "line 3: invalid MAC address '52:54': write it as '52:54:00:12:34:56'"},
      {"<interface type='user'><link state='sideways'/></interface>",
       "line 3: unknown link state 'sideways': known are up, down"},
      {"<interface type='user'><mtu/></interface>", "line 3: <mtu> has no size"},
      {"<interface type='direct'><source dev='e' mode='x'/></interface>",
       "line 3: unknown mode of a direct interface 'x': known are vepa, bridge, private, passthrough"},
      {"<interface type='user'><ip/></interface>", "line 3: <ip> has no address"},
      {"<interface type='user'><ip address='1.2.3'/></interface>",
       "line 3: invalid value '1.2.3' for attribute 'address' of <ip>: an IPv4 or IPv6 address is needed"},
      {"<interface type='user'><ip address='1.2.3.4' family='ipv6'/></interface>",
       "line 3: address '1.2.3.4' of <ip> is not of family 'ipv6'"},
      {"<interface type='user'><ip address='1.2.3.4' prefix='33'/></interface>",
       "line 3: prefix 33 of <ip> is more than 32"},
      {"<interface type='user'><route address='0.0.0.0'/></interface>", "line 3: <route> has no gateway"},
      {"<interface type='user'><route address='::' gateway='::1'/></interface>",
       "line 3: address '::' of <route> is not of family 'ipv4'"},
      {"<console type='tape'/>",
       "line 3: unknown console type 'tape': known are null, vc, pty, dev, file, pipe, stdio, udp, tcp, unix, "
       "spicevmc, "
       "spiceport, nmdm, qemu-vdagent, dbus"},
      {"<console><log/></console>", "line 3: <log> of <console> has no file"},
      {"<hostdev mode='capabilities' type='misc'/>", "line 3: <hostdev> has no <source>"},
      {"<hostdev mode='capabilities' type='misc'><source/></hostdev>",
       "line 3: <hostdev type='misc'> needs <source><char>..."},
      {"<hostdev type='usb'><source/></hostdev>",
       "line 3: <source> of a USB hostdev needs <vendor> and <product>, or <address>"},
      {"<hostdev type='usb'><source><vendor id='1'/></source></hostdev>",
       "line 3: <source> of a USB hostdev needs both <vendor> and <product>, or none"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(error_of(devices(text)), expected) << text;
}

TEST(ParseDomain, ADefinitionForgetsWhatIsLive) {
  const std::string text =
      "<domain type='lxc' id='7'><name>web</name><devices>"
      "<interface type='network'><source network='n' bridge='b' portid='p'/><target dev='vnet0'/><alias "
      "name='net0'/></interface>"
      "<interface type='user'><target dev='mine'/><alias name='ua-mine'/></interface>"
      "<console tty='/dev/pts/1'><source path='/dev/pts/1'/><alias name='console0'/></console></devices></domain>";
  const auto inactive = parse_domain(text);
  ASSERT_TRUE(inactive);
  EXPECT_EQ(inactive->id, -1);
  EXPECT_EQ(inactive->interfaces[0].target_dev, "");
  EXPECT_FALSE(inactive->interfaces[0].alias);
  EXPECT_TRUE(inactive->interfaces[0].kept.empty());
  EXPECT_EQ(inactive->interfaces[1].target_dev, "mine");
  EXPECT_EQ(inactive->interfaces[1].alias->name, "ua-mine");
  EXPECT_EQ(inactive->consoles[0].source_path + inactive->consoles[0].tty, "");
  const auto live = parse_domain(text, kParseLive);
  ASSERT_TRUE(live);
  EXPECT_EQ(live->id, 7);
  EXPECT_EQ(live->interfaces[0].target_dev, "vnet0");
  EXPECT_EQ(live->consoles[0].tty, "/dev/pts/1");
  // The inactive form of the live definition is the definition again.
  EXPECT_EQ(format_domain(*live, FormatKind::kInactive).find("vnet0"), std::string::npos);
  EXPECT_EQ(format_domain(*live, FormatKind::kInactive).find("pts"), std::string::npos);
  EXPECT_NE(format_domain(*live, FormatKind::kActive).find("<domain type='lxc' id='7'>"), std::string::npos);
}

TEST(FormatDomain, HidesPasswordsUnlessAsked) {
  const auto def = parse_domain(
      devices("<graphics type='vnc' passwd='a&apos;b' port='1'/><graphics type='vnc'><x passwd='kept'/></graphics>"));
  ASSERT_TRUE(def);
  const auto hidden = format_domain(*def, FormatKind::kInactive);
  EXPECT_NE(hidden.find("<graphics type='vnc' port='1'/>"), std::string::npos) << hidden;
  EXPECT_NE(hidden.find("<x passwd='kept'/>"), std::string::npos);
  EXPECT_NE(format_domain(*def, FormatKind::kInactive, Secrets::kShow).find("passwd='a&apos;b'"), std::string::npos);
}

TEST(ParseDomain, ReadsOurExtension) {
  const auto def =
      parse_domain(domain("<metadata><u:domain xmlns:u='urn:virtuserns:domain:1.0'><u:pids limit='7'/>"
                          "<u:ids count='131072'/></u:domain></metadata>"));
  ASSERT_TRUE(def) << def.error().text;
  EXPECT_EQ(def->userns.pids_limit, 7u);
  EXPECT_EQ(def->userns.id_count, 131072u);
}

TEST(ParseDomain, ChecksAgainstLibvirtsSchemaWhenAsked) {
  if (::access("/usr/share/libvirt/schemas/domain.rng", R_OK) != 0)
    GTEST_SKIP() << "libvirt's schemas are not installed";
  const std::string good =
      "<domain type='lxc'><name>web</name><memory>65536</memory><os><type>exe</type><init>/sbin/init</init></os>"
      "<devices><filesystem type='mount'><source dir='/srv'/><target dir='/'/></filesystem></devices></domain>";
  EXPECT_EQ(error_of(good, kParseSchema), "accepted");
  const auto bad = parse_domain(
      "<domain type='lxc'><name>web</name><memory>65536</memory><os><type>exe</type></os><odd/></domain>",
      kParseSchema);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, VIR_ERR_XML_INVALID_SCHEMA);
  EXPECT_EQ(bad.error().text.find("the XML does not follow libvirt's schema 'domain.rng': "), 0u) << bad.error().text;
}

}  // namespace
}  // namespace virtuserns::xml
