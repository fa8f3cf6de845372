// A machine that runs becomes a container, and is off only while what it has written meanwhile is gone over.
#pragma once

#include <string>

#include "tools/convert/findings.h"
#include "tools/convert/settings.h"

namespace virtuserns::convert {

// As convert_machine(), of a domain of settings.source.uri, into a tree; the container is started. After an error the machine
// runs on, or again. After a crash the next run does that, and begins anew; where the container ran already, it only says so.
[[nodiscard]] Result<Report> take_over(const std::string& word, const Settings& settings,
                                       const std::string& workplace);

}  // namespace virtuserns::convert
