// Who of an instance's processes has a device open. A device that is taken away while somebody has it would be his still, and
// whoever gets the same one next shares it with him.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "driver/compute/model.h"

namespace virtuserns::compute {

struct DeviceUser {
  pid_t pid = 0;
  std::string name;
};

// One of them: of the processes with these ids, which are a container's. What is on its way in a socket is not found.
[[nodiscard]] Result<std::optional<DeviceUser>> find_user(const std::string& device, const IdRange& ids);

}  // namespace virtuserns::compute
