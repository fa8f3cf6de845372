#include "driver/controller/child_links.h"

#include <sched.h>
#include <unistd.h>

#include <cerrno>

#include "conf/base/text.h"
#include "driver/controller/network.h"
#include "driver/kernel/clone.h"

namespace virtuserns::controller {

namespace {

// The name that the kernel made of "vnet%d". The guest's end knows the host's by index, and nobody else has touched it.
Result<std::string> name_of_peer(const Host& host, const NsFd& net_ns, const std::string& guest_name,
                                 kernel::RouteSocket& route) {
  auto inside = TRY(open_route_inside(host, net_ns));
  const auto guest = TRY(kernel::find_link(inside, guest_name));
  return TRY(kernel::find_link(route, guest.peer_index)).name;
}

Result<void> unless_gone(Result<void> removed) {
  if (!removed && removed.error().sys_errno == ENODEV) return {};
  return removed;
}

// Container root may have given it another name. It cannot be told from others then.
Result<void> unless_renamed(Result<void> done, const std::string& name) {
  if (done || done.error().sys_errno != ENODEV) return done;
  return fail(VIR_ERR_OPERATION_FAILED, "interface " + quote(name) + " is not there: has the container renamed it?");
}

}  // namespace

Result<kernel::RouteSocket> open_route_inside(const Host& host, const NsFd& net_ns) {
  TRY(kernel::enter_namespace(net_ns, CLONE_NEWNET));
  auto route = kernel::RouteSocket::open();
  if (!kernel::enter_namespace(host.net_ns, CLONE_NEWNET)) ::_exit(1);  // links would be made in the wrong one
  return route;
}

Result<kernel::RouteSocket*> Links::socket() {
  if (!route_) {
    route_.emplace(TRY(kernel::RouteSocket::open()));
    net_ns_ = TRY(kernel::open_namespace(host_.proc, init_, "net"));
  }
  return &*route_;
}

Result<void> Links::apply(const VethStep& step) {
  auto& route = *TRY(socket());
  TRY(kernel::create_veth(route, {step.host_name, step.guest_name, step.guest_mac, step.bridge, step.mtu, step.is_up},
                          net_ns_));
  std::string name = step.host_name;
  if (name.find('%') != std::string::npos)
    name = TRY(name_of_peer(host_, net_ns_, step.guest_name, route), "name of the veth");
  // On success the link dies with the namespace. After a failure it is removed at once: "nothing is left" is then true.
  undo_.add([this, name] { (void)kernel::remove_link(*route_, name); });
  names_.push_back(name);
  return {};
}

Result<void> Links::apply(const MacvlanStep& step) {
  TRY(kernel::create_macvlan(*TRY(socket()), {step.host_device, step.guest_name, step.mode, step.mac}, net_ns_));
  undo_.add([this, step] { (void)remove(host_, net_ns_, step); });
  return {};
}

Result<void> Links::apply(const MoveLinkStep& step) {
  TRY(kernel::move_link(*TRY(socket()), step.host_device, step.guest_name, net_ns_));
  undo_.add([this, step] { (void)remove(host_, net_ns_, step); });
  return {};
}

Result<void> Links::apply(const UserLinkStep&) {
  const NamespacePair container{TRY(kernel::open_namespace(host_.proc, init_, "user")),
                                TRY(kernel::open_namespace(host_.proc, init_, "net"))};
  return attach_link(host_.network, user_links_++, container);
}

// No undo: the host's end is not ours to remove, and goes with the namespace.
Result<void> Links::apply(const LentLinkStep& step) {
  const auto net = TRY(kernel::open_namespace(host_.proc, init_, "net"));
  names_.push_back(TRY(borrow_link(host_.network, lent_links_++, net), "interface " + quote(step.guest_name)));
  return {};
}

Result<void> remove(const Host&, const NsFd&, const VethStep&, const std::string& host_link) {
  auto route = TRY(kernel::RouteSocket::open());
  return unless_gone(kernel::remove_link(route, host_link));
}

Result<void> remove(const Host& host, const NsFd& net_ns, const MacvlanStep& step) {
  auto inside = TRY(open_route_inside(host, net_ns));
  return unless_renamed(kernel::remove_link(inside, step.guest_name), step.guest_name);
}

Result<void> remove(const Host& host, const NsFd& net_ns, const MoveLinkStep& step) {
  auto inside = TRY(open_route_inside(host, net_ns));
  return unless_renamed(kernel::move_link(inside, step.guest_name, step.host_device, host.net_ns), step.guest_name);
}

Result<void> configure(kernel::RouteSocket& route, const LinkUpStep& step) {
  return kernel::set_link_up(route, step.device);
}
Result<void> configure(kernel::RouteSocket& route, const AddressStep& step) {
  return kernel::add_address(route, {step.device, step.address, step.prefix, step.peer});
}
Result<void> configure(kernel::RouteSocket& route, const RouteStep& step) {
  return kernel::add_route(route, {step.device, step.network, step.prefix, step.gateway, step.metric});
}

}  // namespace virtuserns::controller
