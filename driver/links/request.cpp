#include "driver/links/request.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>

#include "conf/base/packet.h"
#include "conf/base/text.h"

namespace virtuserns::links {

namespace {

constexpr std::size_t kBudget = 8 * 1024;
constexpr std::uint32_t kLeastMtu = 68, kMostMtu = 65'535;  // ETH_MIN_MTU, ETH_MAX_MTU
constexpr int kAnswerTimeoutS = 20;

// '%' would be a pattern: the kernel would choose another name.
bool is_link_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && std::all_of(name.begin(), name.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '/' && c != '%' && c != ':';
  });
}

Error no_broker(const std::string& path, int err) {
  return sys_fail(
      "ask " + quote(path) +
          ", where virtusernsd of the system makes the links of users when its virtusernsd.conf grants them "
          "(user_links = [ \"USER:BRIDGE:N\" ])",
      err);
}

}  // namespace

Result<LinkRequest> decode_request(std::span<const std::uint8_t> bytes) {
  const auto refuse = [](const std::string& why) { return fail(VIR_ERR_RPC, "request for a link: " + why); };
  auto decoded = xdr::decode_exact<LinkRequest>(bytes, kBudget);
  if (!decoded) return std::move(decoded).error().with_context("request for a link");
  const auto& request = *decoded;
  if (request.version != 1) return refuse("version " + std::to_string(request.version) + " is not known");
  for (const std::string* name :
       {static_cast<const std::string*>(&request.bridge), static_cast<const std::string*>(&request.guest_name)})
    if (!is_link_name(*name)) return refuse(quote(*name) + " is no name of a link");
  const auto& mac = request.guest_mac;
  if ((mac[0] & 1) != 0 || std::all_of(mac.begin(), mac.end(), [](std::uint8_t byte) { return byte == 0; }))
    return refuse(format_mac_bytes(mac) + " is no address of one station");
  if (request.mtu && (*request.mtu < kLeastMtu || *request.mtu > kMostMtu))
    return refuse("mtu " + std::to_string(*request.mtu) + " is not from 68 to 65535");
  return decoded;
}

Result<std::string> ask_for_link(const std::string& socket_path, const LinkRequest& request, const NsFd& net) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "socket path " + quote(socket_path) + " is too long");
  socket_path.copy(address.sun_path, socket_path.size());
  const SocketFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return sys_fail("create socket");
  const timeval timeout{kAnswerTimeoutS, 0};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
    if (::setsockopt(socket.get(), SOL_SOCKET, option, &timeout, sizeof timeout) != 0) return sys_fail("set timeout");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return no_broker(socket_path, errno);
  const int file = net.get();
  const auto sent = send_packet(socket.get(), xdr::encode(request), std::span(&file, 1));
  auto packet = sent ? recv_packet(socket.get()) : Result<Packet>(sent.error());
  const int err = packet ? 0 : packet.error().sys_errno;
  if (err == EAGAIN) return fail(VIR_ERR_OPERATION_TIMEOUT, "virtusernsd of the system does not answer");
  if (err == EPIPE || err == ECONNRESET || (packet && packet->bytes.empty()))
    return fail(VIR_ERR_RESOURCE_BUSY,
                "virtusernsd of the system has hung up: it ends, or too many links are asked for at once: try again");
  if (!packet) return std::move(packet).error().with_context("ask for a link");
  const auto answer = TRY(xdr::decode_exact<LinkAnswer>(packet->bytes, kBudget), "answer of the link broker");
  if (const auto* refused = std::get_if<LinkRefused>(&answer))
    return Error{refused->code, refused->sys_errno, refused->text};
  return std::string(std::get<LinkMade>(answer).host_name);
}

}  // namespace virtuserns::links
