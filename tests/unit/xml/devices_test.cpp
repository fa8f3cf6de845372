#include "xml/devices.h"

#include <gtest/gtest.h>

namespace virtuserns::xml {
namespace {

TEST(Device, EveryKindComesBack) {
  for (const std::string text :
       {"<filesystem type='mount' accessmode='passthrough'>\n  <source dir='/a'/>\n  <target dir='/b'/>\n  "
        "<readonly/>\n</filesystem>\n",
        "<disk type='block' device='disk'>\n  <source dev='/dev/sda'/>\n  <target dev='vda' "
        "bus='virtio'/>\n</disk>\n",
        "<interface type='bridge'>\n  <mac address='52:54:00:00:00:01'/>\n  <source bridge='br0'/>\n</interface>\n",
        "<console type='pty'>\n  <target type='lxc' port='2'/>\n</console>\n",
        "<hostdev mode='capabilities' type='net'>\n  <source>\n    <interface>eth0</interface>\n  "
        "</source>\n</hostdev>\n"}) {
    const auto device = parse_device(text);
    ASSERT_TRUE(device) << device.error().text;
    EXPECT_EQ(format_device(*device), text);
  }
}

TEST(Device, AliasOfALiveDevice) {
  const std::string text =
      "<disk type='block'>\n<source dev='/dev/sda'/><target dev='vda'/><alias name='disk0'/></disk>";
  EXPECT_EQ(std::get<DiskDef>(*parse_device(text, kParseLive)).alias->name, "disk0");
  EXPECT_FALSE(std::get<DiskDef>(*parse_device(text)).alias);
}

TEST(Device, KindsThatAContainerCannotHave) {
  const auto tpm = parse_device("<tpm model='tpm-tis'/>");
  ASSERT_FALSE(tpm);
  EXPECT_EQ(tpm.error().code, VIR_ERR_CONFIG_UNSUPPORTED);
  EXPECT_EQ(tpm.error().text,
            "line 1: device <tpm> of type '' is not supported by containers: known are filesystem, disk, interface, "
            "console and hostdev");
  EXPECT_EQ(parse_device("<hostdev mode='subsystem' type='pci'/>")
                .error()
                .text.find("line 1: device <hostdev> of type 'pci'"),
            0u);
  EXPECT_FALSE(parse_device("<disk type='network'/>"));
  EXPECT_FALSE(parse_device("not xml"));
}

TEST(Mac, IsSixHexBytes) {
  EXPECT_EQ(format_mac(*parse_mac("52:54:00:AB:cd:0f")), "52:54:00:ab:cd:0f");
  EXPECT_EQ(format_mac(*parse_mac("0:1:2:3:4:5")), "00:01:02:03:04:05");
  for (const auto* bad : {"", "52:54:00:ab:cd", "52:54:00:ab:cd:0f:00", "52-54-00-ab-cd-0f", "52:54:00:ab:cd:1ff",
                          "52:54:00:ab:cd:", "g0:00:00:00:00:00"})
    EXPECT_FALSE(parse_mac(bad)) << bad;
}

}  // namespace
}  // namespace virtuserns::xml
