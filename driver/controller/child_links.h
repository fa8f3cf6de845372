// Links of a container's network namespace, made and removed from outside.
//
// Before its init runs nobody is in there, and names are as they were given. Later the container's root may rename, move or replace
// a link the moment it is there: then only its number on the host, or one that was chosen before it was there, tells it.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/undo.h"
#include "driver/controller/host.h"
#include "driver/controller/plan.h"
#include "driver/kernel/link.h"

namespace virtuserns::controller {

// Which namespace it is, as long as it is there.
[[nodiscard]] Result<ino_t> number_of(const NsFd& ns);

// The end on the host of a link. index 0: not known to us (it was lent).
struct HostEnd {
  std::string name;
  std::uint32_t index = 0, inside_index = 0;
};

// One in a container that runs.
struct LiveLink {
  std::uint32_t index = 0;        // inside
  std::uint32_t lower_index = 0;  // of a macvlan: what it is on, on the host
  HostEnd end;                    // of a veth
};

// A socket of the network namespace, for a caller with one thread, who is at home in host.net_ns and leaves for it only
// as long as this takes.
[[nodiscard]] Result<kernel::RouteSocket> open_route_inside(const Host& host, const NsFd& net_ns);

// Those of a boot, whose sockets and handles are opened at the first one. What was made is removed again unless commit() is called.
class Links {
 public:
  // `init` waits. `ends` gets the end on the host of each VethStep and LentLinkStep, `macvlans` each MacvlanStep's by its name inside.
  Links(const Host& host, pid_t init, std::vector<HostEnd>& ends, std::map<std::string, LiveLink>& macvlans)
      : host_(host), init_(init), ends_(ends), macvlans_(macvlans) {}

  [[nodiscard]] Result<void> apply(const VethStep& step);
  [[nodiscard]] Result<void> apply(const MacvlanStep& step);
  [[nodiscard]] Result<void> apply(const MoveLinkStep& step);
  [[nodiscard]] Result<void> apply(const UserLinkStep& step);
  [[nodiscard]] Result<void> apply(const LentLinkStep& step);
  void commit() { undo_.commit(); }

 private:
  [[nodiscard]] Result<kernel::RouteSocket*> socket();

  const Host& host_;
  pid_t init_;
  std::vector<HostEnd>& ends_;
  std::map<std::string, LiveLink>& macvlans_;
  std::optional<kernel::RouteSocket> route_;
  NsFd net_ns_;
  std::uint32_t user_links_ = 0, lent_links_ = 0;
  Undo undo_;
};

[[nodiscard]] Result<LiveLink> make_live(const Host& host, const NsFd& net_ns, const VethStep& step);
[[nodiscard]] Result<LiveLink> make_live(const Host& host, const NsFd& net_ns, const MacvlanStep& step);
// By its end on the host, wherever the other is. One that is gone is no error, nor is another that has its number now.
[[nodiscard]] Result<void> remove_veth(const HostEnd& end);
// An error when the container has removed it, or taken it to a namespace where nobody finds it.
[[nodiscard]] Result<void> remove_macvlan(const Host& host, const NsFd& net_ns, const LiveLink& link);

// By a socket of the container's. index 0: by its name.
[[nodiscard]] Result<void> configure(kernel::RouteSocket& route, const LinkUpStep& step, std::uint32_t index = 0);
[[nodiscard]] Result<void> configure(kernel::RouteSocket& route, const AddressStep& step, std::uint32_t index = 0);
[[nodiscard]] Result<void> configure(kernel::RouteSocket& route, const RouteStep& step, std::uint32_t index = 0);

}  // namespace virtuserns::controller
