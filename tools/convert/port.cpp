#include "tools/convert/port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/loop.h"
#include "tools/convert/domains.h"

namespace virtuserns::convert {
namespace {

constexpr int kAnswerMs = 500;
constexpr std::chrono::milliseconds kLookAgain{20};

struct Endpoint {
  sockaddr_storage address{};
  socklen_t size = 0;  // 0: none
};

Endpoint endpoint_of(const std::string& text, std::uint16_t port) {
  Endpoint endpoint;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (::inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET, v4.sin_port = htons(port);
    std::memcpy(&endpoint.address, &v4, endpoint.size = sizeof v4);
  } else if (::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1 && !IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr)) {
    v6.sin6_family = AF_INET6, v6.sin6_port = htons(port);
    std::memcpy(&endpoint.address, &v6, endpoint.size = sizeof v6);
  }
  return endpoint;
}

bool answers(const Endpoint& endpoint) {
  const SocketFd socket(::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return false;
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&endpoint.address), endpoint.size) == 0) return true;
  if (errno != EINPROGRESS) return false;
  pollfd entry{socket.get(), POLLOUT, 0};
  int error = 0;
  socklen_t size = sizeof error;
  return ::poll(&entry, 1, kAnswerMs) == 1 && ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
         error == 0;
}

}  // namespace

Result<bool> wait_for_port(const std::string& uri, const std::string& uuid, std::uint16_t port,
                           std::uint32_t limit_ms) {
  const auto deadline = Loop::now_ms() + limit_ms;
  do {
    // Each time: the guest gives itself addresses when it has come so far.
    for (const auto& link : TRY(list_links(uri, uuid)))
      for (const auto& address : link.addresses)
        if (const auto endpoint = endpoint_of(address, port); endpoint.size != 0 && answers(endpoint)) return true;
    std::this_thread::sleep_for(kLookAgain);
  } while (Loop::now_ms() < deadline);
  return false;
}

}  // namespace virtuserns::convert
