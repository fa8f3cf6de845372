// Every procedure with any arguments. Input: program (1 byte), procedure (u16), read-only (1 byte), then the payload:
// structure-aware in that mutation spends itself on arguments and not on framing.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "driver/rpc/dispatch.h"
#include "driver/rpc/error.h"
#include "driver/rpc/protocol.h"
#include "tests/support/fake_driver.h"

using namespace virtuserns;
using namespace virtuserns::rpc;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  static test::FakeDriver driver;
  static const SessionHost host{{{"userns", &driver}}, false};
  const bool read_only = (data[3] & 1) != 0;
  Session session(host, Peer{1000, 1000, 1, 1, {}}, 1, read_only, AuthMethod::kNone);
  if ((data[3] & 2) == 0 && !session.open("userns:///system", false)) std::abort();

  const auto program = data[0] == 0xfe ? kUsernsProgram : data[0] % 3 == 0 ? kLxcProgram : kRemoteProgram;
  Header header{program, 1, data[1] << 8 | data[2], MessageType::kCall, 1, Status::kOk};
  const auto row = admit(session, header);
  if (!row) {
    (void)error_frame(header, row.error());
    return 0;
  }
  if (read_only && (*row)->access == Access::kWrite) std::abort();
  const Answer answer = serve(session, **row, Message{header, {data + 4, data + size}, {}});
  // Whatever came in, what goes out is a frame that can be read.
  const auto head = xdr::decode<Header>(std::span(answer.frame.bytes).subspan(kLengthBytes));
  if (!head || answer.frame.bytes.size() > kMaxFrameBytes || answer.frame.fds.size() > kMaxMessageFds) std::abort();
  if (head->status == Status::kError &&
      !xdr::decode<wire::RemoteError>(std::span(answer.frame.bytes).subspan(kLengthBytes + kHeaderBytes)))
    std::abort();
  return 0;
}
