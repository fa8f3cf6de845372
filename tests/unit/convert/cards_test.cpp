#include "tools/convert/cards.h"

#include "conf/domain_devices.h"
#include "tests/unit/convert/tree.h"
#include "tools/convert/nics.h"
#include "xml/devices.h"

namespace virtuserns::convert {
namespace {

MacAddress mac(const char* text) { return *xml::parse_mac(text); }
NicSource card_at(const char* address, unsigned bus, unsigned slot) {
  return {mac(address), NicSource::Pci{0, bus, slot, 0, false}, "virtio"};
}
std::string names_of(const std::vector<GuestNic>& nics) {
  std::string text;
  for (const auto& nic : nics) text += (text.empty() ? "" : " ") + nic.guest_dev;
  return text;
}
std::string names_of(const Tree& tree, const std::vector<NicSource>& sources) {
  std::vector<Finding> findings;
  return names_of(name_nics(tree.files(), sources, findings));
}

TEST(Cards, IfupdownIsReadAndHotplugBecomesAuto) {
  const std::string text =
      "auto lo\niface lo inet loopback\n  allow-hotplug enp1s0  eth1\n# allow-hotplug eth9\niface enp1s0 inet dhcp\n"
      "\thwaddress ether 52:54:00:00:00:09\niface eth1 inet manual";
  const auto cards = parse_ifupdown(text);
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].name, "enp1s0");
  EXPECT_EQ(cards[0].mac, mac("52:54:00:00:00:09"));
  const auto edited = with_auto(text);
  EXPECT_NE(edited.find("  auto enp1s0  eth1\n# allow-hotplug eth9"), std::string::npos) << edited;
  EXPECT_EQ(with_auto(edited), edited);
  EXPECT_EQ(with_auto("no end of line"), "no end of line");
}

TEST(Cards, NetplanOfCloudInitAndByHand) {
  const auto cloud = parse_netplan(
      "network:\n    version: 2\n    ethernets:\n        enp1s0:\n            match:\n                macaddress: 52:54:00:aa:bb:01\n"
      "            dhcp4: true\n            set-name: enp1s0\n        lan:\n            match: {}\n            match:\n"
      "                macaddress: '52:54:00:aa:bb:02'\n    bridges:\n        br0:\n            interfaces: [enp1s0]\n");
  ASSERT_EQ(cloud.size(), 2u);
  EXPECT_EQ(cloud[0].name, "enp1s0");
  EXPECT_EQ(cloud[0].mac, mac("52:54:00:aa:bb:01"));
  EXPECT_EQ(cloud[1].name, "");  // an id of netplan's, not a name
  EXPECT_EQ(cloud[1].mac, mac("52:54:00:aa:bb:02"));
  const auto plain = parse_netplan("network:\n  ethernets:\n    ens3:\n      dhcp4: yes\n    ens4: {}\n");
  ASSERT_EQ(plain.size(), 2u);
  EXPECT_EQ(plain[1].name, "ens4");
}

TEST(Nics, ByMacInUdevRulesAndLinkFiles) {
  const Tree tree;
  tree.write(
      "/etc/udev/rules.d/70-persistent-net.rules",
      "# by hand\nSUBSYSTEM==\"net\", ACTION==\"add\", ATTR{address}==\"52:54:00:aa:bb:02\", ATTR{dev_id}==\"0x0\", NAME=\"eth0\"\n");
  tree.write("/etc/systemd/network/10-wan.link", "[Match]\nMACAddress=52:54:00:aa:bb:01\n[Link]\nName=wan0\n");
  EXPECT_EQ(names_of(tree, {card_at("52:54:00:aa:bb:01", 1, 0), card_at("52:54:00:aa:bb:02", 2, 0)}), "wan0 eth0");
}

TEST(Nics, ByTheNamesThatTheConfigurationHas) {
  const Tree tree;
  tree.write("/usr/lib/systemd/network/99-default.link", "");
  tree.write("/etc/network/interfaces", "iface lo inet loopback\niface ens4 inet dhcp\niface ens3 inet dhcp\n");
  EXPECT_EQ(names_of(tree, {card_at("52:54:00:aa:bb:01", 0, 3), card_at("52:54:00:aa:bb:02", 0, 4)}), "ens3 ens4");
}

TEST(Nics, OneCardAndOneNameBelongTogether) {
  const Tree tree;
  tree.write("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nONBOOT=yes\n");
  tree.write("/etc/sysconfig/network-scripts/ifcfg-lo", "DEVICE=lo\n");
  EXPECT_EQ(names_of(tree, {card_at("52:54:00:aa:bb:01", 6, 0)}), "eth0");
}

TEST(Nics, AGuessIsSaidAndUnique) {
  const Tree tree;
  std::vector<Finding> findings;
  tree.write("/usr/lib/systemd/network/99-default.link", "");
  const auto nics = name_nics(
      tree.files(),
      {card_at("52:54:00:aa:bb:01", 1, 0), card_at("52:54:00:aa:bb:02", 1, 0), {mac("52:54:00:aa:bb:03"), {}, ""}},
      findings);
  EXPECT_EQ(names_of(nics), "enp1s0 ens0 eth2");
  EXPECT_EQ(about(findings, "guess").size(), 3u);
}

TEST(Nics, KernelNamesWhereTheGuestAsksForThem) {
  const Tree tree;
  tree.write("/usr/lib/systemd/network/99-default.link", "");
  tree.write("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"net.ifnames=0 biosdevname=0\"\n");
  EXPECT_EQ(names_of(tree, {card_at("52:54:00:aa:bb:01", 1, 0), card_at("52:54:00:aa:bb:02", 2, 0)}), "eth0 eth1");
}

TEST(Nics, NamesOfAGuestThatNoLinkCanHaveAreNotTaken) {
  const Tree tree;
  tree.write(
      "/etc/udev/rules.d/70-persistent-net.rules",
      "ATTR{address}==\"52:54:00:aa:bb:01\", NAME=\"../../evil\"\nATTR{address}==\"52:54:00:aa:bb:01\", NAME=\"lo\"\n"
      "ATTR{address}==\"52:54:00:aa:bb:01\", NAME=\"a-name-that-is-too-long\"\n");
  EXPECT_EQ(names_of(tree, {card_at("52:54:00:aa:bb:01", 1, 0)}), "eth0");
}

TEST(Nics, ACopyHasAddressesOfItsOwn) {
  std::vector<GuestNic> nics = {{mac("52:54:00:aa:bb:01"), "eth0", {}}, {mac("52:54:00:aa:bb:02"), "eth1", {}}};
  give_new_macs(nics);
  EXPECT_EQ(nics[0].former_mac, mac("52:54:00:aa:bb:01"));
  EXPECT_NE(nics[0].mac, mac("52:54:00:aa:bb:01"));
  EXPECT_NE(nics[0].mac, nics[1].mac);
  EXPECT_TRUE(format_mac(nics[0].mac).starts_with("52:54:00:"));
}

}  // namespace
}  // namespace virtuserns::convert
