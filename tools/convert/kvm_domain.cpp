// The first reading of a machine's XML: what there is to open.
#include "conf/base/text.h"
#include "tools/convert/kvm_devices.h"
#include "tools/convert/map_domain.h"

namespace virtuserns::convert {

Result<KvmDomain> read_kvm_domain(std::string_view kvm_xml) {
  const auto document = TRY(xml::Document::parse(kvm_xml));
  const auto root = document.root();
  if (!root.is("domain"))
    return root.error("unexpected root element <" + std::string(root.name()) + ">: <domain> is needed");
  KvmDomain domain;
  domain.name = TRY(root.only_child("name")).text();
  domain.virt_type = root.attribute_or("type");
  domain.arch = root.child("os").child("type").attribute_or("arch");
  const auto devices = TRY(root.only_child("devices"));
  for (const auto node : devices.children("disk")) domain.disks.push_back(read_disk(node));
  for (const auto node : devices.children("interface"))
    if (auto nic = read_nic(node)) domain.nics.push_back(std::move(*nic));
  return domain;
}

}  // namespace virtuserns::convert
