#include "driver/rpc/auth.h"

#include <grp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include <array>
#include <memory>

#include "conf/base/file.h"
#include "conf/base/text.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5; Debian 12's headers are older
#endif

namespace virtuserns::rpc {
namespace {

constexpr std::uint64_t kAnswerTimeoutUs = 180'000'000;  // somebody may have to type a password
constexpr std::uint32_t kAllowInteraction = 1;

struct Unref {
  void operator()(sd_bus* bus) const { sd_bus_flush_close_unref(bus); }
  void operator()(sd_bus_message* message) const { sd_bus_message_unref(message); }
};

bool is_gone(const PidFd& pidfd) {
  pollfd poll_pidfd{pidfd.get(), POLLIN, 0};
  return pidfd && ::poll(&poll_pidfd, 1, 0) > 0;
}

}  // namespace

std::uint64_t read_start_time(pid_t pid) {
  const auto stat = read_kernel_file("/proc/" + std::to_string(pid) + "/stat", 4096);
  if (!stat) return 0;
  // The command name, field 2, may hold anything, ")" and blanks too: what counts is after the last ")".
  const auto end = stat->rfind(')');
  if (end == std::string::npos) return 0;
  const auto fields = split_blanks(std::string_view(*stat).substr(end + 1));
  return fields.size() > 19 ? parse_number<std::uint64_t>(fields[19]).value_or(0) : 0;
}

namespace {

// socket(7): ERANGE says how much room they take.
std::vector<gid_t> read_groups(const SocketFd& socket) {
  std::vector<gid_t> groups(64);
  for (;;) {
    auto size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    const bool is_read = ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0;
    const std::size_t count = size / sizeof(gid_t);
    if (!is_read && (errno != ERANGE || count <= groups.size())) return {};
    groups.resize(count);
    if (is_read) return groups;
  }
}

}  // namespace

Result<gid_t> group_id(const std::string& name) {
  std::array<char, 16384> buffer;
  group entry{};
  group* found = nullptr;
  if (::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "group " + quote(name) + " does not exist");
  return found->gr_gid;
}

Result<Peer> read_peer(const SocketFd& socket, AuthMethod method) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return sys_fail("read peer credentials");
  Peer peer{credentials.uid, credentials.gid, credentials.pid, 0, {}, read_groups(socket)};
  if (method == AuthMethod::kNone || peer.uid == 0) return peer;
  peer.start_time = read_start_time(peer.pid);
  int pidfd = -1;
  size = sizeof pidfd;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0) peer.pidfd = PidFd(pidfd);
  return peer;
}

Result<void> check_polkit(const Peer& peer, const char* action) {
  if (peer.uid == 0) return {};
  if (peer.start_time == 0 || is_gone(peer.pidfd)) return fail(VIR_ERR_AUTH_FAILED, "the connecting process is gone");
  sd_bus* raw_bus = nullptr;
  int rc = sd_bus_open_system(&raw_bus);
  if (rc < 0) return fail(VIR_ERR_AUTH_UNAVAILABLE, sys_fail("connect to the system bus", -rc).text);
  const std::unique_ptr<sd_bus, Unref> bus(raw_bus);

  sd_bus_message* raw_call = nullptr;
  rc = sd_bus_message_new_method_call(bus.get(), &raw_call, "org.freedesktop.PolicyKit1",
                                      "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority",
                                      "CheckAuthorization");
  if (rc < 0) return fail(VIR_ERR_AUTH_FAILED, sys_fail("make a polkit request", -rc).text);
  const std::unique_ptr<sd_bus_message, Unref> call(raw_call);
  rc = sd_bus_message_append(call.get(), "(sa{sv})sa{ss}us", "unix-process", 3, "pid", "u",
                             static_cast<std::uint32_t>(peer.pid), "start-time", "t", peer.start_time, "uid", "i",
                             static_cast<std::int32_t>(peer.uid), action, 0, kAllowInteraction, "");
  if (rc < 0) return fail(VIR_ERR_AUTH_FAILED, sys_fail("fill a polkit request", -rc).text);

  sd_bus_error bus_error = SD_BUS_ERROR_NULL;
  sd_bus_message* raw_reply = nullptr;
  rc = sd_bus_call(bus.get(), call.get(), kAnswerTimeoutUs, &bus_error, &raw_reply);
  if (rc < 0) {
    const std::string why =
        bus_error.message != nullptr ? printable(bus_error.message) : sys_fail("ask polkit", -rc).text;
    sd_bus_error_free(&bus_error);
    return fail(VIR_ERR_AUTH_FAILED, "polkit: " + why);
  }
  const std::unique_ptr<sd_bus_message, Unref> reply(raw_reply);
  int is_authorized = 0, is_challenge = 0;
  bool is_dismissed = false;
  rc = sd_bus_message_enter_container(reply.get(), 'r', "bba{ss}");
  if (rc >= 0) rc = sd_bus_message_read(reply.get(), "bb", &is_authorized, &is_challenge);
  if (rc >= 0) rc = sd_bus_message_enter_container(reply.get(), 'a', "{ss}");
  const char *key = nullptr, *value = nullptr;
  while (rc >= 0 && (rc = sd_bus_message_read(reply.get(), "{ss}", &key, &value)) > 0)
    is_dismissed = is_dismissed || std::string_view(key) == "polkit.dismissed";
  if (rc < 0) return fail(VIR_ERR_AUTH_FAILED, "polkit's answer has an unknown form");
  if (is_authorized != 0 && !is_gone(peer.pidfd)) return {};
  if (is_dismissed) return fail(VIR_ERR_AUTH_CANCELLED, "user cancelled authentication process");
  if (is_challenge != 0)
    return fail(VIR_ERR_AUTH_UNAVAILABLE,
                std::string("no polkit agent available to authenticate action ") + quote(action));
  return fail(VIR_ERR_AUTH_FAILED, std::string("access denied by policy: ") + action);
}

}  // namespace virtuserns::rpc
