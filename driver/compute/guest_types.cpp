#include "driver/compute/guest_types.h"

#include "conf/base/text.h"
#include "xml/node.h"

namespace virtuserns::compute {

Result<std::vector<GuestType>> read_guest_types(std::string_view capabilities_xml) {
  const auto document = TRY(xml::Document::parse(capabilities_xml));
  std::vector<GuestType> types;
  for (const auto& guest : document.root().children("guest")) {
    const auto os = guest.child("os_type").text();
    for (const auto& arch : guest.children("arch"))
      for (const auto& domain : arch.children("domain"))
        types.push_back({arch.attribute_or("name"), domain.attribute_or("type"), os});
  }
  return types;
}

// <secmodel><model>dac</model><baselabel type='qemu'>+64055:+64055</baselabel></secmodel>
Result<std::optional<gid_t>> read_guest_group(std::string_view capabilities_xml, std::string_view virt) {
  const auto document = TRY(xml::Document::parse(capabilities_xml));
  for (const auto& model : document.root().child("host").children("secmodel")) {
    if (model.child("model").text() != "dac") continue;
    for (const auto& label : model.children("baselabel")) {
      const auto text = label.text();
      const auto at = text.find(":+");
      if (label.attribute_or("type") != virt || at == std::string::npos) continue;
      if (const auto group = parse_number<gid_t>(text.substr(at + 2))) return std::optional(*group);
    }
  }
  return std::optional<gid_t>();
}

}  // namespace virtuserns::compute
