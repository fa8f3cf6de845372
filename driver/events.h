// Events: what happened to domains, told to whoever wants to know.
//
// A driver emits; the front end subscribes. Bounded: a subscriber is a function that must not block and must not
// call back into the driver (it queues to its client; the client's queue is bounded, see rpc/client.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <variant>

#include "conf/domain.h"
#include "conf/typed_param.h"

namespace virtuserns {

// Enough to name a domain on the wire.
struct DomainRef {
  std::string name;
  Uuid uuid;
  int id = -1;
  bool operator==(const DomainRef&) const = default;
};

// event/detail: VIR_DOMAIN_EVENT_* and the detail enum that belongs to it (libvirt-domain.h)
struct LifecycleEvent {
  int event = 0;
  int detail = 0;
};
struct RebootEvent {};
struct ControlErrorEvent {};
struct BalloonChangeEvent {
  std::uint64_t actual_kib = 0;
};
struct DeviceAddedEvent {
  std::string alias;
};
struct DeviceRemovedEvent {
  std::string alias;
};
struct DeviceRemovalFailedEvent {
  std::string alias;
};
struct TunableEvent {
  TypedParams params;
};
struct MetadataChangeEvent {
  int type = 0;
  std::string uri;
};  // virDomainMetadataType

using EventBody = std::variant<LifecycleEvent, RebootEvent, ControlErrorEvent, BalloonChangeEvent, DeviceAddedEvent,
                               DeviceRemovedEvent, DeviceRemovalFailedEvent, TunableEvent, MetadataChangeEvent>;

struct Event {
  DomainRef domain;
  EventBody body;
  std::optional<OwnerDef> owner;  // of the domain when it happened
};

// Thread-safe. Events are handed to every subscriber in the order of emit().
class EventHub {
 public:
  using Subscriber = std::function<void(const Event&)>;
  int subscribe(Subscriber subscriber);
  void unsubscribe(int id);  // returns only when no call of that subscriber is under way
  void emit(const Event& event);

 private:
  std::mutex mutex_;
  int next_id_ = 1;
  std::map<int, Subscriber> subscribers_;
};

}  // namespace virtuserns
