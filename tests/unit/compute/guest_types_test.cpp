#include "driver/compute/guest_types.h"

#include <gtest/gtest.h>

namespace virtuserns::compute {
namespace {

TEST(GuestTypes, AsLibvirtSaysThem) {
  const auto types = read_guest_types(R"(<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
    <guest><os_type>hvm</os_type><arch name='i686'><wordsize>32</wordsize><domain type='qemu'/></arch></guest>
    <guest><os_type>hvm</os_type><arch name='x86_64'><domain type='qemu'/><domain type='kvm'/></arch></guest>
    </capabilities>)");
  ASSERT_TRUE(types);
  EXPECT_EQ(*types,
            (std::vector<GuestType>{{"i686", "qemu", "hvm"}, {"x86_64", "qemu", "hvm"}, {"x86_64", "kvm", "hvm"}}));
}

TEST(GuestTypes, WhoseGroupTheyRunAs) {
  const auto group = [](const std::string& label, const char* virt = "qemu") {
    return read_guest_group(
               "<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model>"
               "<baselabel type='kvm'>+1:+2</baselabel><baselabel type='qemu'>" +
                   label + "</baselabel></secmodel></host></capabilities>",
               virt)
        .value();
  };
  EXPECT_EQ(group("+64055:+110"), std::optional<gid_t>(110));
  EXPECT_EQ(group("+64055:+110", "kvm"), std::optional<gid_t>(2));
  for (const auto* nobody : {"", "+1", "+1:", "+1:+x", "+1:+99999999999"}) EXPECT_FALSE(group(nobody)) << nobody;
  EXPECT_FALSE(group("+1:+2", "xen"));
}

TEST(GuestTypes, NoneAndNoSense) {
  EXPECT_TRUE(read_guest_types("<capabilities/>")->empty());
  EXPECT_FALSE(read_guest_types("<capabilities>"));
}

}  // namespace
}  // namespace virtuserns::compute
