#include "driver/rpc/events.h"

#include <libvirt/libvirt.h>

#include "driver/rpc/protocol.h"

namespace virtuserns::rpc {
namespace {

// How one kind of event travels: its public id, the procedure with a callback id, and the old one (0: there is none).
struct Kind {
  std::int32_t event_id, procedure, legacy_procedure;
};

constexpr Kind kind_of(const LifecycleEvent&) { return {VIR_DOMAIN_EVENT_ID_LIFECYCLE, 318, 107}; }
constexpr Kind kind_of(const RebootEvent&) { return {VIR_DOMAIN_EVENT_ID_REBOOT, 319, 169}; }
constexpr Kind kind_of(const ControlErrorEvent&) { return {VIR_DOMAIN_EVENT_ID_CONTROL_ERROR, 325, 224}; }
constexpr Kind kind_of(const BalloonChangeEvent&) { return {VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, 331, 276}; }
constexpr Kind kind_of(const DeviceAddedEvent&) { return {VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, 354, 0}; }
constexpr Kind kind_of(const DeviceRemovedEvent&) { return {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, 333, 311}; }
constexpr Kind kind_of(const DeviceRemovalFailedEvent&) {
  return {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, 367, 0};
}
constexpr Kind kind_of(const TunableEvent&) { return {VIR_DOMAIN_EVENT_ID_TUNABLE, 346, 0}; }
constexpr Kind kind_of(const MetadataChangeEvent&) { return {VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, 379, 0}; }

wire::LifecycleMessage message_of(const DomainRef& dom, const LifecycleEvent& e) { return {dom, e.event, e.detail}; }
wire::DomainMessage message_of(const DomainRef& dom, const RebootEvent&) { return {dom}; }
wire::DomainMessage message_of(const DomainRef& dom, const ControlErrorEvent&) { return {dom}; }
wire::BalloonMessage message_of(const DomainRef& dom, const BalloonChangeEvent& e) { return {dom, e.actual_kib}; }
wire::DeviceMessage message_of(const DomainRef& dom, const DeviceAddedEvent& e) { return {dom, e.alias}; }
wire::DeviceMessage message_of(const DomainRef& dom, const DeviceRemovedEvent& e) { return {dom, e.alias}; }
wire::DeviceMessage message_of(const DomainRef& dom, const DeviceRemovalFailedEvent& e) { return {dom, e.alias}; }
wire::TunableMessage message_of(const DomainRef& dom, const TunableEvent& e) { return {dom, e.params}; }
wire::MetadataMessage message_of(const DomainRef& dom, const MetadataChangeEvent& e) {
  return {dom, e.type, e.uri.empty() ? wire::MaybeText() : wire::MaybeText(e.uri)};
}

}  // namespace

std::int32_t event_id_of(const EventBody& body) {
  return std::visit([](const auto& event) { return kind_of(event).event_id; }, body);
}

std::optional<Frame> make_event_frame(const Event& event, const Registration& registration) {
  const Kind kind = std::visit([](const auto& body) { return kind_of(body); }, event.body);
  const std::int32_t procedure = registration.is_legacy ? kind.legacy_procedure : kind.procedure;
  if (procedure == 0) return std::nullopt;
  FrameBuilder builder({kRemoteProgram, kProgramVersion, procedure, MessageType::kEvent, 0, Status::kOk});
  xdr::Writer writer(builder.bytes());
  if (!registration.is_legacy) writer.write(registration.callback_id);
  std::visit([&](const auto& body) { writer.write(message_of(event.domain, body)); }, event.body);
  auto frame = std::move(builder).finish();
  if (!frame) return std::nullopt;
  return std::move(*frame);
}

}  // namespace virtuserns::rpc
