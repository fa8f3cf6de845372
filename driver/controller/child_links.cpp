#include "driver/controller/child_links.h"

#include <sched.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "conf/base/text.h"
#include "driver/controller/network.h"
#include "driver/kernel/clone.h"

namespace virtuserns::controller {

namespace {

constexpr int kMostNumbers = 16;  // that are tried
constexpr int kMostLooks = 150;
constexpr unsigned kPauseUs = 20'000;

// Of those that nothing else gives out, so that one that is gone is not another's soon.
std::uint32_t choose_number() {
  std::uint32_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number) number = static_cast<std::uint32_t>(::getpid());
  return (1U << 20) + number % (1U << 29);
}

// Until one is free, of both.
template <class Make>
Result<void> with_numbers(const Make& make) {
  for (int i = 0;; ++i) {
    auto made = make(choose_number(), choose_number());
    if (made || made.error().sys_errno != EBUSY || i == kMostNumbers) return made;
  }
}

}  // namespace

Result<ino_t> number_of(const NsFd& ns) {
  struct stat st {};
  if (::fstat(ns.get(), &st) != 0) return sys_fail("stat namespace");
  return st.st_ino;
}

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
  const kernel::VethRequest request{step.host_name, step.guest_name, step.guest_mac,
                                    step.bridge,    step.mtu,        step.is_up};
  // One of the last boot has the name until the kernel comes to take its namespace down.
  auto created = kernel::create_veth(route, request, net_ns_);
  for (int i = 0; i < kMostLooks && !created && created.error().sys_errno == EEXIST; ++i) {
    ::usleep(kPauseUs);
    created = kernel::create_veth(route, request, net_ns_);
  }
  TRY(std::move(created));
  // The guest's end knows the host's by its number, and nobody else has touched it.
  auto inside = TRY(open_route_inside(host_, net_ns_), "find the veth");
  const auto guest = TRY(kernel::find_link(inside, step.guest_name), "find the veth");
  // On success the link dies with the namespace. After a failure it is removed at once: "nothing is left" is then true.
  undo_.add([this, index = guest.peer_index] { (void)kernel::remove_link(*route_, index); });
  ends_.push_back(
      {TRY(kernel::find_link(route, guest.peer_index), "find the veth").name, guest.peer_index, guest.index});
  return {};
}

Result<void> Links::apply(const MacvlanStep& step) {
  TRY(kernel::create_macvlan(*TRY(socket()), {step.host_device, step.guest_name, step.mode, step.mac}, net_ns_));
  auto inside = TRY(open_route_inside(host_, net_ns_), "find the macvlan");
  const auto made = TRY(kernel::find_link(inside, step.guest_name), "find the macvlan");
  macvlans_[step.guest_name] = {made.index, made.peer_index, {}};
  return {};
}

Result<void> Links::apply(const MoveLinkStep& step) {
  return kernel::move_link(*TRY(socket()), step.host_device, step.guest_name, net_ns_);
}

Result<void> Links::apply(const UserLinkStep&) {
  NamespacePair container;
  container.user = TRY(kernel::open_namespace(host_.proc, init_, "user"));
  container.net = TRY(kernel::open_namespace(host_.proc, init_, "net"));
  return attach_link(host_.network, user_links_++, container);
}

// No undo: the host's end is not ours to remove, and goes with the namespace.
Result<void> Links::apply(const LentLinkStep& step) {
  const auto net = TRY(kernel::open_namespace(host_.proc, init_, "net"));
  ends_.push_back({TRY(borrow_link(host_.network, lent_links_++, net), "interface " + quote(step.guest_name))});
  return {};
}

Result<LiveLink> make_live(const Host&, const NsFd& net_ns, const VethStep& step) {
  auto route = TRY(kernel::RouteSocket::open());
  LiveLink link;
  TRY(with_numbers([&](std::uint32_t host_index, std::uint32_t inside_index) {
    kernel::VethRequest request{step.host_name, step.guest_name, step.guest_mac, step.bridge, step.mtu, step.is_up};
    request.host_index = link.end.index = host_index;
    request.peer_index = link.end.inside_index = link.index = inside_index;
    return kernel::create_veth(route, request, net_ns);
  }));
  auto found = kernel::find_link(route, link.end.index);
  if (!found) (void)kernel::remove_link(route, link.end.index);
  link.end.name = TRY(std::move(found)).name;
  return link;
}

Result<LiveLink> make_live(const Host&, const NsFd& net_ns, const MacvlanStep& step) {
  auto route = TRY(kernel::RouteSocket::open());
  LiveLink link;
  link.lower_index = TRY(kernel::find_link(route, step.host_device)).index;
  TRY(with_numbers([&](std::uint32_t index, std::uint32_t) {
    link.index = index;
    return kernel::create_macvlan(route, {step.host_device, step.guest_name, step.mode, step.mac, index}, net_ns);
  }));
  return link;
}

Result<void> remove_veth(const HostEnd& end) {
  auto route = TRY(kernel::RouteSocket::open());
  const auto found = kernel::find_link(route, end.index);
  if (!found && found.error().sys_errno == ENODEV) return {};
  if (!found) return found.error();
  if (found->kind != "veth" || found->peer_index != end.inside_index) return {};
  auto removed = kernel::remove_link(route, end.index);
  if (!removed && removed.error().sys_errno == ENODEV) return {};
  return removed;
}

Result<void> remove_macvlan(const Host& host, const NsFd& net_ns, const LiveLink& link) {
  auto inside = TRY(open_route_inside(host, net_ns));
  const auto found = kernel::find_link(inside, link.index);
  const auto here = TRY(kernel::name_of_namespace(inside, host.net_ns));
  // What the container makes itself is on nothing of the host's network.
  if (!found || found->kind != "macvlan" || found->peer_index != link.lower_index || !here ||
      found->peer_namespace != here)
    return fail(
        VIR_ERR_OPERATION_FAILED,
        "the container has removed it, or moved it to a network namespace of its own: it goes when the domain ends");
  return kernel::remove_link(inside, link.index);
}

Result<void> configure(kernel::RouteSocket& route, const LinkUpStep& step, std::uint32_t index) {
  // A macvlan of the last boot, with the same address, is there until the kernel comes to take its namespace down.
  auto up = kernel::set_link_up(route, step.device, index);
  for (int i = 0; i < kMostLooks && !up && up.error().sys_errno == EADDRINUSE; ++i) {
    ::usleep(kPauseUs);
    up = kernel::set_link_up(route, step.device, index);
  }
  return up;
}
Result<void> configure(kernel::RouteSocket& route, const AddressStep& step, std::uint32_t index) {
  return kernel::add_address(route, {step.device, step.address, step.prefix, step.peer, index});
}
Result<void> configure(kernel::RouteSocket& route, const RouteStep& step, std::uint32_t index) {
  return kernel::add_route(route, {step.device, step.network, step.prefix, step.gateway, step.metric, index});
}

}  // namespace virtuserns::controller
