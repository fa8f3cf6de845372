#include "driver/kernel/netlink.h"

#include <sys/socket.h>

#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

constexpr std::size_t kMaxMessage = 32 * 1024;
constexpr std::size_t padded(std::size_t size) { return (size + 3) & ~std::size_t{3}; }

template <class T>
T read_as(std::span<const std::uint8_t> bytes) {
  T value{};
  if (bytes.size() >= sizeof value) std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace

NetlinkMessage::NetlinkMessage(std::uint16_t type, std::uint16_t flags) {
  nlmsghdr head{};
  head.nlmsg_type = type;
  head.nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST | NLM_F_ACK);
  append(&head, sizeof head);
}

void NetlinkMessage::append(const void* data, std::size_t size) {
  if (size > kMaxMessage || bytes_.size() + padded(size) > kMaxMessage) {
    is_valid_ = false;
    return;
  }
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  bytes_.insert(bytes_.end(), bytes, bytes + size);
  bytes_.resize(padded(bytes_.size()));
}

void NetlinkMessage::attribute(std::uint16_t type, const void* data, std::size_t size) {
  if (size > kMaxMessage) {
    is_valid_ = false;
    return;
  }
  const nlattr head{static_cast<std::uint16_t>(sizeof(nlattr) + size), type};
  append(&head, sizeof head);
  append(data, size);
}

void NetlinkMessage::attribute(std::uint16_t type, std::string_view text) {
  const std::string terminated(text);
  attribute(type, terminated.c_str(), terminated.size() + 1);
}

std::size_t NetlinkMessage::begin(std::uint16_t type) {
  const std::size_t at = bytes_.size();
  const nlattr head{0, static_cast<std::uint16_t>(type | NLA_F_NESTED)};
  append(&head, sizeof head);
  return at;
}

void NetlinkMessage::end(std::size_t nest) {
  if (!is_valid_) return;
  const auto size = static_cast<std::uint16_t>(bytes_.size() - nest);  // kMaxMessage is below 2^16
  std::memcpy(bytes_.data() + nest, &size, sizeof size);
}

std::span<const std::uint8_t> NetlinkMessage::finish(std::uint32_t sequence) {
  auto head = read_as<nlmsghdr>(bytes_);
  head.nlmsg_len = static_cast<std::uint32_t>(bytes_.size());
  head.nlmsg_seq = sequence;
  std::memcpy(bytes_.data(), &head, sizeof head);
  return bytes_;
}

std::uint32_t NetlinkAttribute::u32() const { return read_as<std::uint32_t>(bytes); }

std::string NetlinkAttribute::text() const {
  std::string value(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return value.substr(0, value.find('\0'));
}

std::vector<NetlinkAttribute> parse_attributes(std::span<const std::uint8_t> bytes) {
  std::vector<NetlinkAttribute> attributes;
  while (bytes.size() >= sizeof(nlattr)) {
    const auto head = read_as<nlattr>(bytes);
    if (head.nla_len < sizeof(nlattr) || head.nla_len > bytes.size()) break;
    attributes.push_back({static_cast<std::uint16_t>(head.nla_type & NLA_TYPE_MASK),
                          bytes.subspan(sizeof(nlattr), head.nla_len - sizeof(nlattr))});
    bytes = bytes.subspan(std::min(padded(head.nla_len), bytes.size()));
  }
  return attributes;
}

std::optional<NetlinkVerdict> read_answers(std::span<const std::uint8_t> bytes, std::uint32_t sequence,
                                           const RouteSocket::Visit& visit) {
  while (bytes.size() >= sizeof(nlmsghdr)) {
    const auto head = read_as<nlmsghdr>(bytes);
    if (head.nlmsg_len < sizeof(nlmsghdr) || head.nlmsg_len > bytes.size())
      return NetlinkVerdict{EBADMSG, "malformed answer"};
    const auto payload = bytes.subspan(sizeof(nlmsghdr), head.nlmsg_len - sizeof(nlmsghdr));
    bytes = bytes.subspan(std::min(padded(head.nlmsg_len), bytes.size()));
    if (head.nlmsg_seq != sequence) continue;
    if (head.nlmsg_type == NLMSG_DONE) return NetlinkVerdict{};
    if (head.nlmsg_type != NLMSG_ERROR) {
      visit(head.nlmsg_type, payload);
      continue;
    }
    const auto error = read_as<nlmsgerr>(payload);
    NetlinkVerdict verdict{-error.error, {}};
    // NETLINK_CAP_ACK is on: only the header of the request comes back, then what the kernel has to say.
    if ((head.nlmsg_flags & NLM_F_ACK_TLVS) != 0 && payload.size() >= sizeof(nlmsgerr))
      for (const auto& attribute : parse_attributes(payload.subspan(sizeof(nlmsgerr))))
        if (attribute.type == NLMSGERR_ATTR_MSG) verdict.text = attribute.text();
    return verdict;
  }
  return std::nullopt;
}

Result<RouteSocket> RouteSocket::open() {
  SocketFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) return sys_fail("open netlink socket");
  const int on = 1;
  (void)::setsockopt(socket.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  (void)::setsockopt(socket.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  return RouteSocket(std::move(socket));
}

Result<void> RouteSocket::request(NetlinkMessage message) {
  return query(std::move(message), [](std::uint16_t, std::span<const std::uint8_t>) {});
}

Result<void> RouteSocket::query(NetlinkMessage message, const Visit& visit) {
  if (!message.is_valid()) return fail(VIR_ERR_INTERNAL_ERROR, "netlink message is too long");
  const auto bytes = message.finish(++sequence_);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(socket_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0)
    return sys_fail("send netlink message");
  std::vector<std::uint8_t> buffer(32 * 1024);
  for (;;) {
    const auto size = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return sys_fail("receive netlink message");
    const auto verdict = read_answers(std::span(buffer).first(static_cast<std::size_t>(size)), sequence_, visit);
    if (!verdict) continue;
    if (verdict->error == 0) return {};
    return sys_fail(verdict->text.empty() ? "netlink request" : "netlink request (" + printable(verdict->text) + ")",
                    verdict->error);
  }
}

}  // namespace virtuserns::kernel
