// The link broker of the system's daemon: makes links on bridges of the host for sessions of ordinary users, as many as
// virtusernsd.conf grants (user_links). docs/decisions/0017-a-broker-for-links.md
//
// A thread of its own with a loop of its own, whose only capability is CAP_NET_ADMIN, effective only while a link is made. It
// keeps nothing: what a user has is counted in the kernel, by name, at each request.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conf/base/loop.h"
#include "conf/daemon_config.h"

namespace virtuserns::links {

struct BrokerPlaces {
  std::string socket, config_file, proc;
};

class LinkBroker {
 public:
  // Listens at the socket, which everybody may connect to, in place of a stale one.
  [[nodiscard]] static Result<std::unique_ptr<LinkBroker>> start(const BrokerPlaces& places,
                                                                 std::vector<UserLinkGrant> grants);
  ~LinkBroker();  // the socket's file stays, as those of the daemon do
  LinkBroker(const LinkBroker&) = delete;
  LinkBroker& operator=(const LinkBroker&) = delete;

  void set_grants(std::vector<UserLinkGrant> grants);  // for requests to come

 private:
  class Service;
  LinkBroker() = default;

  std::unique_ptr<Loop> loop_;
  std::unique_ptr<Service> service_;
  std::thread thread_;
  std::future<void> ended_;
};

}  // namespace virtuserns::links
