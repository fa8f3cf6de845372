// Events on the wire.
#pragma once

#include <optional>

#include "driver/events.h"
#include "driver/rpc/message.h"
#include "driver/rpc/session.h"

namespace virtuserns::rpc {

[[nodiscard]] std::int32_t event_id_of(const EventBody& body);  // virDomainEventID
// The message that tells `registration` of `event`. None: the old kind of registration cannot express it.
[[nodiscard]] std::optional<Frame> make_event_frame(const Event& event, const Registration& registration);

}  // namespace virtuserns::rpc
