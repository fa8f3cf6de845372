#include "conf/device_rules.h"

namespace virtuserns {

const std::vector<DeviceRule>& standard_device_rules() {
  static const std::vector<DeviceRule> rules = [] {
    std::vector<DeviceRule> made;
    for (const std::uint32_t minor : {3U, 5U, 7U, 8U, 9U}) made.push_back({DeviceKind::kCharacter, 1, minor});
    for (const std::uint32_t minor : {0U, 1U, 2U}) made.push_back({DeviceKind::kCharacter, 5, minor});
    made.push_back({DeviceKind::kCharacter, 136, std::nullopt});
    return made;
  }();
  return rules;
}

std::string format_device_rule(const DeviceRule& rule) {
  std::string text = rule.kind == DeviceKind::kBlock ? "b " : "c ";
  text += std::to_string(rule.major) + ":" + (rule.minor ? std::to_string(*rule.minor) : "*") + " ";
  if (rule.access & DeviceRule::kRead) text += 'r';
  if (rule.access & DeviceRule::kWrite) text += 'w';
  if (rule.access & DeviceRule::kMakeNode) text += 'm';
  return text;
}

}  // namespace virtuserns
