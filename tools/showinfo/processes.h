// showinfo ps: processes with the ids that the host knows them by, and the namespace that gives those their meaning.
#pragma once

#include <string>
#include <vector>

#include "tools/showinfo/host.h"
#include "tools/showinfo/table.h"

namespace virtuserns::showinfo {

// What is asked for: numbers of processes, names of commands, names of domains. Nothing: everything but threads of the
// kernel. Ordered as on the talk's slide: by namespace, the caller's own first, then by the lowest id that each maps.
struct ProcessRows {
  std::vector<const Process*> rows;  // of the host that they were chosen from
  std::vector<std::string> missing;  // what nothing answers to
};
[[nodiscard]] ProcessRows choose_processes(const Host& host, const std::vector<std::string>& wanted);

[[nodiscard]] std::string format_processes(const std::vector<const Process*>& rows, const Names& names);
[[nodiscard]] std::string format_processes_json(const Host& host, const std::vector<const Process*>& rows,
                                                const Names& names);

// "3 processes are not ..."; empty when everything could be seen.
[[nodiscard]] std::string format_hidden(const Host& host);

// The namespaces in the order above; those that cannot be seen come last.
[[nodiscard]] bool comes_before(const Host& host, NamespaceId a, NamespaceId b);

}  // namespace virtuserns::showinfo
