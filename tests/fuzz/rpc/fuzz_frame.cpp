// The receiving side: any bytes in any pieces. Input: a seed for the pieces, then the stream.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "driver/rpc/message.h"

using namespace virtuserns;
using namespace virtuserns::rpc;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  std::size_t piece = data[0] % 61 + 1;
  InputBudget budget(256 * 1024);
  Receiver receiver(budget);
  std::span<const std::uint8_t> rest(data + 1, size - 1);
  while (!rest.empty()) {
    const std::size_t n = std::min(piece, rest.size());
    if (!receiver.append(rest.first(n))) return 0;
    rest = rest.subspan(n);
    piece = piece * 7 % 61 + 1;
    for (;;) {
      auto message = receiver.next();
      if (!message) return 0;
      if (!*message) break;
      // What was taken apart can be put together again.
      if ((*message)->payload.size() > kMaxPayloadBytes) std::abort();
      const Frame again = make_data_frame((*message)->header, (*message)->payload);
      if (again.bytes.size() != (*message)->payload.size() + kLengthBytes + kHeaderBytes) std::abort();
    }
  }
  return 0;
}
