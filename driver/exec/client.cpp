#include "driver/exec/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstdlib>

#include "conf/base/text.h"
#include "conf/paths.h"
#include "driver/rpc/error.h"

namespace virtuserns::exec {

namespace {

// Procedures of libvirt's remote protocol.
constexpr std::int32_t kOpen = 1, kGetXml = 14, kLookupById = 22, kLookupByName = 23, kLookupByUuid = 24,
                       kAuthList = 66, kAuthPolkit = 70, kListAllDomains = 273;
constexpr std::int32_t kAuthWithPolkit = 2, kAuthWithNothing = 0;

struct Nothing {};

Result<void> wait_for(const SocketFd& socket, short events) {
  pollfd entry{socket.get(), events, 0};
  while (::poll(&entry, 1, -1) < 0)
    if (errno != EINTR) return sys_fail("wait for the daemon");
  return {};
}

}  // namespace

Result<Address> parse_uri(const std::string& uri) {
  const auto refuse = [&](const char* why) {
    return fail(VIR_ERR_INVALID_ARG, "URI " + quote(uri) + " " + why + "; give one as 'userns:///system'");
  };
  const auto colon = uri.find("://");
  if (colon == std::string::npos) return refuse("has no scheme");
  std::string scheme = uri.substr(0, colon);
  if (const auto plus = scheme.find('+'); plus != std::string::npos) {
    if (scheme.substr(plus) != "+unix") return refuse("is not of this machine");
    scheme.resize(plus);
  }
  std::string path = uri.substr(colon + 3), socket;
  if (const auto mark = path.find('?'); mark != std::string::npos) {
    for (const auto parameter : split(std::string_view(path).substr(mark + 1), '&'))
      if (parameter.starts_with("socket=")) socket = parameter.substr(7);
    path.resize(mark);
  }
  if (path.empty() || path.front() != '/') return refuse("is not of this machine");
  if (socket.empty()) socket = (path == "/session" ? session_paths() : system_paths()).run + "/virtusernsd-sock";
  return Address{scheme + "://" + path, socket};
}

std::string default_uri() {
  const char* uri = std::getenv("LIBVIRT_DEFAULT_URI");
  return uri && std::string_view(uri).starts_with("userns") ? uri : "userns:///system";
}

Result<Client> Client::connect(const Address& address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (address.socket.size() >= sizeof name.sun_path)
    return fail(VIR_ERR_INVALID_ARG, "socket " + quote(address.socket) + ": the path is too long");
  address.socket.copy(name.sun_path, address.socket.size());
  SocketFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return sys_fail("make socket");
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0)
    return sys_fail("Failed to connect socket to " + quote(address.socket));
  Client client(std::move(socket));
  TRY(client.log_in(address));
  return client;
}

Result<void> Client::log_in(const Address& address) {
  const auto methods = TRY(call<rpc::wire::AuthListReply>(kAuthList, Nothing{})).types;
  const auto has = [&](std::int32_t method) {
    return std::find(methods.begin(), methods.end(), method) != methods.end();
  };
  if (has(kAuthWithPolkit))
    (void)TRY(call<rpc::wire::IntReply>(kAuthPolkit, Nothing{}));
  else if (!methods.empty() && !has(kAuthWithNothing))
    return fail(VIR_ERR_AUTH_UNAVAILABLE, "the daemon asks for an authentication that this program does not know");
  (void)TRY(call<Nothing>(kOpen, rpc::wire::OpenArgs{address.name, 0}));
  return {};
}

Result<rpc::Message> Client::next_message() {
  for (;;) {
    if (auto message = TRY(receiver_->next())) return std::move(*message);
    switch (TRY(receiver_->read_from(socket_))) {
      case rpc::Receiver::Read::kEnd:
        return fail(VIR_ERR_RPC, "the daemon closed the connection");
      case rpc::Receiver::Read::kNothing:
        TRY(wait_for(socket_, POLLIN));
        break;
      case rpc::Receiver::Read::kSome:
        break;
    }
  }
}

Result<rpc::Message> Client::exchange(rpc::Header header, rpc::Frame frame) {
  std::size_t sent_bytes = 0, sent_fds = 0;
  while (!TRY(rpc::send_frame(socket_, frame, sent_bytes, sent_fds))) TRY(wait_for(socket_, POLLOUT));
  for (;;) {
    auto message = TRY(next_message());
    if (message.header.serial != header.serial || message.header.program != header.program) continue;
    if (message.header.type != rpc::MessageType::kReply && message.header.type != rpc::MessageType::kReplyWithFds)
      continue;
    if (message.header.status == rpc::Status::kOk) return message;
    auto error = TRY(xdr::decode<rpc::wire::RemoteError>(message.payload));
    return fail(error.code, error.message.value_or("the daemon gave no reason"));
  }
}

template <class Reply, class Args>
Result<Reply> Client::call(std::int32_t procedure, const Args& args) {
  const rpc::Header header{rpc::kRemoteProgram, rpc::kProgramVersion, procedure, rpc::MessageType::kCall,
                           ++serial_,           rpc::Status::kOk};
  const auto message = TRY(exchange(header, TRY(rpc::make_frame(header, args))));
  return xdr::decode<Reply>(message.payload);
}

Result<DomainRef> Client::find_domain(const std::string& what) {
  if (const auto id = parse_number<std::int32_t>(what); id && *id >= 0)
    if (auto found = call<rpc::wire::DomainReply>(kLookupById, rpc::wire::LookupIdArgs{*id})) return found->dom;
  if (const auto uuid = parse_uuid(what))
    if (auto found = call<rpc::wire::DomainReply>(kLookupByUuid, rpc::wire::LookupUuidArgs{*uuid})) return found->dom;
  return TRY(call<rpc::wire::DomainReply>(kLookupByName, rpc::wire::LookupNameArgs{what})).dom;
}

Result<std::vector<DomainRef>> Client::list_domains() {
  return TRY(call<rpc::wire::ListAllReply>(kListAllDomains, rpc::wire::ListAllArgs{1, 0})).domains;
}

Result<std::string> Client::read_xml(const DomainRef& domain) {
  return TRY(call<rpc::wire::TextReply>(kGetXml, rpc::wire::DomainFlagsArgs{domain, 0})).text;
}

Result<Started> Client::exec(const DomainRef& domain, const ExecDef& command, Fd program) {
  std::vector<Fd> files;
  if (program) files.push_back(std::move(program));
  const auto type = files.empty() ? rpc::MessageType::kCall : rpc::MessageType::kCallWithFds;
  const rpc::Header header{rpc::kUsernsProgram, rpc::kProgramVersion, rpc::kExecProcedure, type,
                           ++serial_,           rpc::Status::kOk};
  rpc::FrameBuilder builder(header, std::move(files));
  xdr::Writer(builder.bytes()).write(rpc::wire::ExecArgs{domain, command});
  auto message = TRY(exchange(header, TRY(std::move(builder).finish())));
  auto reply = TRY(xdr::decode<rpc::wire::ExecReply>(message.payload));
  if (reply.status == 0 && message.fds.size() != (command.has_terminal ? 2 : 4))
    return fail(VIR_ERR_RPC, "the daemon sent no command");
  return Started{reply.status, std::move(reply.text), std::move(message.fds)};
}

}  // namespace virtuserns::exec
