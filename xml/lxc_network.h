// lxc.net.N.* and lxc.network.* of lxc.conf, for lxc_native.cpp only.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns::xml {

class LxcNetworks {
 public:
  using Ignore = std::function<void(const std::string&)>;
  // `key` with its prefix "lxc.net.N." or "lxc.network.".
  [[nodiscard]] Result<void> take(std::string_view key, std::string_view value, const Ignore& ignore);
  // Adds interfaces and hostdevs, and <privnet/> when there is none.
  [[nodiscard]] Result<void> finish(DomainDef& def, const Ignore& ignore) const;

 private:
  struct Network {
    std::string type, link, name, mac, mode, vlan, pair;
    bool is_up = false;
    std::optional<std::uint32_t> mtu;
    std::vector<IpAddressDef> ips;
    std::vector<RouteDef> routes;
  };
  [[nodiscard]] static Result<bool> set(Network& network, std::string_view key, std::string_view value);
  [[nodiscard]] static Result<InterfaceDef> make_interface(const Network& network);

  std::map<std::uint32_t, Network> networks_;
  std::uint32_t old_style_ = 0;  // number of the last lxc.network.type
};

}  // namespace virtuserns::xml
