#include "driver/compute/guest_types.h"

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

}  // namespace virtuserns::compute
