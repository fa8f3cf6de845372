// showinfo --tree: the user namespaces that processes live in, below the caller's own.
#pragma once

#include <string>

#include "tools/showinfo/host.h"
#include "tools/showinfo/table.h"

namespace virtuserns::showinfo {

[[nodiscard]] std::string format_tree(const Host& host, const Names& names);
[[nodiscard]] std::string format_tree_json(const Host& host, const Names& names);

}  // namespace virtuserns::showinfo
