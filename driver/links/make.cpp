#include "driver/links/make.h"

#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/kernel/caps.h"
#include "driver/kernel/link.h"

namespace virtuserns::links {

namespace {

struct Links {
  unsigned on_bridge = 0;
  std::string free_name;
};

Result<Links> look_at_links(kernel::RouteSocket& route, uid_t uid, std::uint32_t bridge_index) {
  Links links;
  for (unsigned number = 0; number < kMostUserLinks; ++number) {
    auto name = host_name_of(uid, number);
    const auto link = kernel::find_link(route, name);
    if (link)
      links.on_bridge += link->master_index == bridge_index;
    else if (link.error().sys_errno != ENODEV)
      return link.error();
    else if (links.free_name.empty())
      links.free_name = std::move(name);
  }
  return links;
}

}  // namespace

std::string host_name_of(uid_t uid, unsigned number) {
  return "vu" + std::to_string(uid) + "-" + std::to_string(number);
}

Result<std::string> make_link(const LinkRequest& request, const LinkUser& user, const UserLinkGrant& grant,
                              const NsFd& net) {
  auto route = TRY(kernel::RouteSocket::open());
  const auto bridge = kernel::find_link(route, request.bridge);
  if (!bridge && bridge.error().sys_errno == ENODEV)
    return Error{VIR_ERR_CONFIG_UNSUPPORTED, ENODEV,
                 "the host has no bridge " + quote(request.bridge) + ", which " + grant.where + " grants"};
  if (!bridge) return bridge.error();
  const auto links = TRY(look_at_links(route, user.uid, bridge->index));
  if (links.on_bridge >= grant.limit)
    return fail(VIR_ERR_RESOURCE_BUSY, "user " + quote(user.name) + " has " + std::to_string(links.on_bridge) +
                                           " links on bridge " + quote(request.bridge) + ", and may have " +
                                           std::to_string(grant.limit) + " (" + grant.where + ")");
  if (links.free_name.empty())
    return fail(VIR_ERR_RESOURCE_BUSY, "user " + quote(user.name) + " has " + std::to_string(kMostUserLinks) +
                                           " links on all bridges together, which is the most that one may have");
  // A port with a smaller mtu than its bridge's would lower that, for everybody on it: what was asked for is the guest's.
  const kernel::Raised raised(capability_bit(CAP_NET_ADMIN));
  TRY(kernel::create_veth(route,
                          {links.free_name, request.guest_name, request.guest_mac, request.bridge,
                           request.mtu.value_or(bridge->mtu), request.is_up, bridge->mtu},
                          net));
  return links.free_name;
}

}  // namespace virtuserns::links
