// Kernel map text and the rules of maps: a definition that is accepted is one that the kernel would take.
#include <cstdlib>

#include "conf/idmap.h"
#include "conf/validate.h"

using namespace virtuserns;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto lines = parse_kernel_map({reinterpret_cast<const char*>(data), size});
  if (!lines) return 0;
  const auto again = parse_kernel_map(format_kernel_map(*lines));
  if (!again || *again != *lines) std::abort();
  IdMapDef def;
  for (const auto& line : *lines) def.uid.push_back({line.inside, line.outside, line.count});
  def.gid = def.uid;
  const auto refusal = refuse_kernel_map(*lines);
  if (validate_idmap(def) && refusal && !lines->empty()) std::abort();
  if (refusal) return 0;
  for (const auto& line : *lines) {
    const auto last = line.inside + (line.count - 1);
    if (to_host(*lines, line.inside) != line.outside || to_inside(*lines, *to_host(*lines, last)) != last)
      std::abort();
  }
  return 0;
}
