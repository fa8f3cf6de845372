// Links of a container's network namespace, made and removed from outside.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/base/undo.h"
#include "driver/controller/host.h"
#include "driver/controller/plan.h"
#include "driver/kernel/link.h"

namespace virtuserns::controller {

// A socket of the network namespace of `init`, for a caller with one thread, who is at home in host.net_ns and leaves for it only
// as long as this takes.
[[nodiscard]] Result<kernel::RouteSocket> open_route_inside(const Host& host, const NsFd& net_ns);

// Links, whose sockets and handles are opened at the first one. What was made is removed again unless commit() is called.
class Links {
 public:
  // `init` waits, or is held by whoever calls. `names` gets the name on the host of each VethStep and LentLinkStep.
  Links(const Host& host, pid_t init, std::vector<std::string>& names) : host_(host), init_(init), names_(names) {}

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
  std::vector<std::string>& names_;
  std::optional<kernel::RouteSocket> route_;
  NsFd net_ns_;
  std::uint32_t user_links_ = 0, lent_links_ = 0;
  Undo undo_;
};

// Takes one away again. `host_link`: the name that it got. What is not there any more is no error.
[[nodiscard]] Result<void> remove(const Host& host, const NsFd& net_ns, const VethStep& step,
                                  const std::string& host_link);
[[nodiscard]] Result<void> remove(const Host& host, const NsFd& net_ns, const MacvlanStep& step);
[[nodiscard]] Result<void> remove(const Host& host, const NsFd& net_ns, const MoveLinkStep& step);

// By a socket of the container's.
[[nodiscard]] Result<void> configure(kernel::RouteSocket& route, const LinkUpStep& step);
[[nodiscard]] Result<void> configure(kernel::RouteSocket& route, const AddressStep& step);
[[nodiscard]] Result<void> configure(kernel::RouteSocket& route, const RouteStep& step);

}  // namespace virtuserns::controller
