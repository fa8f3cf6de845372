#include "conf/base/text.h"
#include "driver/controller/pasta.h"

namespace virtuserns::controller {

namespace {

constexpr const char* kUplink = "uplink";  // the name of the tap between

std::vector<std::string> common_words(const std::string& name) {
  // -T and -U none: else it would lead to what listens on its side's loopback. -t and -u are always given, because without them
  // it forwards whatever listens inside.
  return {"pasta", "--foreground", "--stderr", "--quiet", "--no-map-gw", "-T", "none", "-U", "none", "-I", name};
}

void add_ports(std::vector<std::string>& words, const std::vector<PortStep>& ports, bool is_guest) {
  // A port at a time: of a range it says nothing about those that it could not have.
  for (const bool is_udp : {false, true}) {
    const auto before = words.size();
    for (const auto& port : ports) {
      if (port.is_udp != is_udp) continue;
      const auto host = std::to_string(port.host_port);
      words.push_back(is_udp ? "-u" : "-t");
      words.push_back(is_guest ? host + ":" + std::to_string(port.guest_port)
                               : (port.host.empty() ? "" : port.host + "/") + host);
    }
    if (words.size() == before) words.insert(words.end(), {is_udp ? "-u" : "-t", "none"});
  }
}

}  // namespace

std::vector<std::string> uplink_words(const UserLinkStep& step) {
  auto words = common_words(kUplink);
  words.emplace_back("--config-net");
  if (!step.host_device.empty()) words.insert(words.end(), {"-i", step.host_device});
  add_ports(words, step.ports, false);
  return words;
}

std::vector<std::string> guest_words(const UserLinkStep& step) {
  auto words = common_words(step.guest_name);
  words.insert(words.end(), {"--ns-mac-addr", format_mac_bytes(step.guest_mac), "-i", kUplink});
  if (step.is_up) words.emplace_back("--config-net");
  if (step.mtu) words.insert(words.end(), {"-m", std::to_string(*step.mtu)});
  if (!step.address.empty())
    words.insert(words.end(), {"-a", step.address, "-n", std::to_string(step.prefix), "-g", step.gateway});
  if (!step.address6.empty()) words.insert(words.end(), {"-a", step.address6, "-g", step.gateway6});
  add_ports(words, step.ports, true);
  return words;
}

}  // namespace virtuserns::controller
