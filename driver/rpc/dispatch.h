// From a message that was received to the frame that answers it.
#pragma once

#include <optional>

#include "driver/rpc/call.h"
#include "driver/rpc/message.h"
#include "driver/rpc/table.h"

namespace virtuserns::rpc {

struct Answer {
  Frame frame;
  std::optional<SocketFd> stream;  // starts after the frame is queued
  bool closes_connection = false;
};

[[nodiscard]] Header reply_header(const Header& request, MessageType type = MessageType::kReply,
                                  Status status = Status::kOk);
[[nodiscard]] Frame error_frame(const Header& request, const Error& error, MessageType type = MessageType::kReply);

// Everything that can be refused without looking at the arguments: program, version, status, procedure,
// authentication, read-only, open. Cheap; runs in the loop's thread.
[[nodiscard]] Result<const Row*> admit(const Session& session, const Header& header);

// Decodes, calls, encodes. Any thread.
[[nodiscard]] Answer serve(Session& session, const Row& row, Message message);

}  // namespace virtuserns::rpc
