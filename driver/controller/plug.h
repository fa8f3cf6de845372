// Devices that come to a running domain and leave it, and passwords in it: what the daemon asks of a domain's stem.
//
// Not by way of the controller: it reads what the container writes, and whoever has taken it over could ask for any link or node
// of the host. So the stem listens itself, at LaunchPlan::plug_path, where nobody gets to but host root, and the controller's
// cage has no connect(2). SOCK_SEQPACKET, XDR: a connection carries one ask and its answer. Only uid 0 is heard.
//
// What is plugged in is there after a reboot of the container as well: its steps join those of the plan. An ask is done wholly
// or not at all, also when whoever asked has gone; what is plugged then can be asked for.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "driver/controller/plan.h"
#include "driver/controller/protocol.h"

namespace virtuserns::controller {

// One device. Its steps are those of a start: BindStep, TmpfsStep, DeviceNodeStep; VethStep and MacvlanStep with LinkUpStep,
// AddressStep and RouteStep. A source_id is the index of a descriptor that comes along: a detached mount. VIR_ERR_OPERATION_INVALID:
// its place is taken.
struct PlugAsk {
  std::vector<ParentStep> from_parent;
  std::vector<InsideStep> inside;
  std::vector<DeviceRule> rules;  // more of them for the domain
};
// VIR_ERR_RESOURCE_BUSY: something in the container uses it. VIR_ERR_OPERATION_UNSUPPORTED: a mount of the start, which the kernel keeps
// locked. What the container has removed itself is no error.
struct UnplugAsk {
  std::string place;  // place_of()
};
struct PlacesAsk {};
// Nothing that is plugged in, but it goes by the same way for the same reason: of a user of the container, in its /etc/shadow (shadow.h).
struct PasswordAsk {
  std::string user, hash;
};
using DeviceAsk = std::variant<PlugAsk, UnplugAsk, PlacesAsk, PasswordAsk>;

struct Plugged {
  std::string host_link;  // of a veth: the name of its end on the host
};
struct Unplugged {};
struct Places {
  std::vector<std::string> all, plugged;  // plugged: those that came after the start
};
struct PasswordSet {};
using DeviceAnswer = std::variant<Plugged, Unplugged, Places, WireError, PasswordSet>;

// What `virtuserns-controller --open` reads from kPlanFd: sources (SourceStep, DeviceSourceStep) that it opens as a start does, for a
// domain of these ids. It answers on kChannelFd, EmptyReply with the mounts in order.
struct OpenAsk {
  std::uint32_t version = kPlanVersion;
  std::uint32_t host_uid = 0, host_gid = 0;
  IdMaps maps;
  std::vector<BeforeStep> sources;
};
using OpenerAnswer = std::variant<EmptyReply, WireError>;

// What `virtuserns-controller --dump` reads from kPlanFd (driver/controller/dump.h). The bundle goes to kChannelFd.
struct DumpedGroup {
  std::string name;   // of its folder in the bundle: "memory", "unified"
  std::string mount;  // "/sys/fs/cgroup/memory"
  std::string path;   // below that
};

struct DumpAsk {
  std::uint32_t version = kPlanVersion;
  std::string name, uuid, definition, console_log;
  std::uint64_t init_pid = 0, at = 0;
  std::uint64_t daemon_pid = 0;  // who asks; a dump does not outlive it
  std::vector<DumpedGroup> groups;
};

// What tells one device of a domain from the others: the target of a mount or node ("/data"), the name inside of a link ("eth7").
// Empty: the step is no device's.
[[nodiscard]] std::string place_of(const ParentStep& step);
// Of a step that configures a link: the link. Empty: it is none.
[[nodiscard]] std::string link_of(const InsideStep& step);

}  // namespace virtuserns::controller
