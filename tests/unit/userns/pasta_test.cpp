#include "driver/controller/pasta.h"

#include <gtest/gtest.h>

namespace virtuserns::controller {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

constexpr const char* kAlways = "pasta --foreground --stderr --quiet --no-map-gw -T none -U none -I ";

TEST(PastaWords, NothingIsForwardedThatNobodyAskedFor) {
  UserLinkStep step;
  step.guest_name = "eth0";
  step.guest_mac = {0x52, 0x54, 0, 0, 0, 1};
  EXPECT_EQ(joined(uplink_words(step)), std::string(kAlways) + "uplink --config-net -t none -u none");
  EXPECT_EQ(joined(guest_words(step)),
            std::string(kAlways) + "eth0 --ns-mac-addr 52:54:00:00:00:01 -i uplink --config-net -t none -u none");
}

TEST(PastaWords, OfEverything) {
  UserLinkStep step{"wan",
                    {0x52, 0x54, 0, 0, 0, 1},
                    "up0",
                    1400,
                    true,
                    "10.0.2.15",
                    "10.0.2.1",
                    24,
                    "fd00::2",
                    "fd00::1",
                    {{false, "", 8080, 80}, {true, "192.0.2.1%up0", 53, 5353}, {false, "fd00::9", 22, 22}},
                    "/var/log/x"};
  EXPECT_EQ(joined(uplink_words(step)),
            std::string(kAlways) + "uplink --config-net -i up0 -t 8080 -t fd00::9/22 -u 192.0.2.1%up0/53");
  EXPECT_EQ(
      joined(guest_words(step)),
      std::string(kAlways) +
          "wan --ns-mac-addr 52:54:00:00:00:01 -i uplink --config-net -m 1400 -a 10.0.2.15 -n 24 -g 10.0.2.1 -a fd00::2 "
          "-g fd00::1 -t 8080:80 -t 22:22 -u 53:5353");
}

TEST(PastaWords, ALinkThatIsDownIsNotConfigured) {
  UserLinkStep step;
  step.guest_name = "eth0";
  step.is_up = false;
  EXPECT_EQ(joined(guest_words(step)).find("--config-net"), std::string::npos);
}

}  // namespace
}  // namespace virtuserns::controller
