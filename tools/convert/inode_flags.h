// The flags of chattr(1) by which a file is held fast: also root has to take them off before it can change one.
#pragma once

#include <string>

#include "conf/base/fd.h"

namespace virtuserns::convert {

// Takes them off the file or directory `name` of `dir`, which is not followed. What there was, for put_flags; 0: none.
int take_flags(const DirFd& dir, const std::string& name);
void put_flags(const DirFd& dir, const std::string& name, int flags);

}  // namespace virtuserns::convert
