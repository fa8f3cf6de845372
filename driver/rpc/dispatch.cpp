#include "driver/rpc/dispatch.h"

#include <string>

#include "driver/rpc/error.h"
#include "driver/rpc/protocol.h"

namespace virtuserns::rpc {

Header reply_header(const Header& request, MessageType type, Status status) {
  return {request.program, request.version, request.procedure, type, request.serial, status};
}

Frame error_frame(const Header& request, const Error& error, MessageType type) {
  return make_frame(reply_header(request, type, Status::kError), make_remote_error(error)).value();
}

Result<const Row*> admit(const Session& session, const Header& header) {
  if (!is_known_program(header.program) || header.version != kProgramVersion)
    return fail(VIR_ERR_RPC, "cannot find program " + std::to_string(header.program) + " version " +
                                 std::to_string(header.version));
  if (header.status != Status::kOk) return fail(VIR_ERR_RPC, "unexpected message status in a call");
  const Row* row = find_row(header.program, header.procedure);
  // Clients look for these first two words, and then fall back to older calls.
  if (row == nullptr) return fail(VIR_ERR_RPC, "unknown procedure: " + std::to_string(header.procedure));
  if (row->needs != Needs::kNothing && !session.is_authenticated())
    return fail(VIR_ERR_RPC, "authentication required");
  if (row->needs == Needs::kOpen && session.driver() == nullptr)
    return fail(VIR_ERR_INTERNAL_ERROR, "connection not open");
  if (row->access == Access::kWrite && session.caller().read_only)
    return fail(VIR_ERR_OPERATION_DENIED, std::string("read only access prevents ") + row->name);
  if (row->run == nullptr) return fail(VIR_ERR_NO_SUPPORT, row->name);
  TRY(check_right(session.caller(), *row));
  return row;
}

Answer serve(Session& session, const Row& row, Message message) {
  Call call{session, row, session.driver(), session.caller(), std::move(message.fds), {}, {}};
  std::vector<std::uint8_t> reply;
  if (const auto done = row.run(call, message.payload, reply); !done)
    return {error_frame(message.header, done.error()), {}, call.closes_connection};

  const auto type = call.reply_fds.empty() ? MessageType::kReply : MessageType::kReplyWithFds;
  FrameBuilder builder(reply_header(message.header, type), std::move(call.reply_fds));
  builder.bytes().insert(builder.bytes().end(), reply.begin(), reply.end());
  auto frame = std::move(builder).finish();
  if (!frame) return {error_frame(message.header, frame.error()), {}, call.closes_connection};
  return {std::move(*frame), std::move(call.stream), call.closes_connection};
}

}  // namespace virtuserns::rpc
