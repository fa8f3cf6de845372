// cloud-init: looks for its data on disks and in the network that a container has not.
#include "conf/base/text.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

void apply_cloud_init(Guest& guest) {
  constexpr const char* kOff = "/etc/cloud/cloud-init.disabled";
  auto& files = guest.files;
  const bool is_there =
      files.exists("/etc/cloud") && (files.exists("/usr/bin/cloud-init") || guest.has_unit("cloud-init.service"));
  if (!is_there || files.exists(kOff)) return;
  for (const auto* seed : {"/var/lib/cloud/seed/nocloud", "/var/lib/cloud/seed/nocloud-net"})
    if (files.exists(std::string(seed) + "/meta-data")) {
      guest.add(Severity::kNote, "cloud-init", "goes on with the seed in " + std::string(seed));
      return;
    }
  const bool has_run = files.exists("/var/lib/cloud/instance");
  if (!guest.replace(kOff, "of virt-userns-convert: a container has no disk or service with instance data\n")) return;
  if (has_run)
    guest.add(Severity::kChange, kOff, "cloud-init is off; what it set up stays", "remove the file to run it again");
  else
    guest.add(Severity::kLoss, kOff, "cloud-init has never run here, and has no seed: it is off",
              "put user-data and meta-data into /var/lib/cloud/seed/nocloud and remove the file");
}

}  // namespace virtuserns::convert
