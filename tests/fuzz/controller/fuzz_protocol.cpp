// Messages between daemon and controller, and to the link broker, and the texts that the controller reads of /proc, netlink and the container.
#include <algorithm>
#include <cstdlib>

#include "driver/controller/plug.h"
#include "driver/controller/protocol.h"
#include "driver/kernel/shadow.h"
#include "driver/controller/users.h"
#include "driver/kernel/mountinfo.h"
#include "driver/kernel/netlink.h"
#include "driver/kernel/process.h"
#include "driver/links/request.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  const std::span bytes(data, size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)xdr::decode_exact<controller::Request>(bytes, 4 * 1024 * 1024);
  if (const auto command = xdr::decode_exact<ExecDef>(bytes, 4 * 1024 * 1024)) (void)validate_exec(*command);
  (void)xdr::decode_exact<ExecSignal>(bytes, kMaxExecMessage);
  (void)xdr::decode_exact<controller::FromController>(bytes, 4 * 1024 * 1024);
  (void)xdr::decode_exact<controller::DeviceAsk>(bytes, 4 * 1024 * 1024);
  (void)xdr::decode_exact<controller::DeviceAnswer>(bytes);
  (void)xdr::decode_exact<controller::OpenAsk>(bytes);
  (void)xdr::decode_exact<controller::OpenerAnswer>(bytes);
  (void)xdr::decode_exact<controller::ExitRecord>(bytes, 65536);
  (void)links::decode_request(bytes);
  (void)xdr::decode_exact<links::LinkAnswer>(bytes, 8192);
  (void)kernel::parse_process_status(text);
  (void)kernel::parse_start_time(text);
  (void)kernel::parse_mountinfo(text);
  (void)kernel::read_answers(bytes, 0, [](std::uint16_t, std::span<const std::uint8_t> payload) {
    (void)kernel::parse_attributes(payload);
  });
  (void)controller::resolve_identity("web", "web", text, text);
  // Of one line: none more and none less, and it says what was asked for.
  if (const auto changed = kernel::replace_hash(text, "root", "$6$x", 20'000)) {
    if (std::count(changed->begin(), changed->end(), '\n') != std::count(text.begin(), text.end(), '\n'))
      std::abort();
    const auto again = kernel::replace_hash(*changed, "root", "$6$x", 20'000);
    if (!again || *again != *changed) std::abort();
  }
  return 0;
}
