#include "driver/rpc/session.h"

#include <libvirt/libvirt.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "conf/base/text.h"

namespace virtuserns::rpc {
namespace {

constexpr std::size_t kMaxRegistrations = 1024;  // of one client; libvirt's client needs one per event and filter

struct OpenName {
  std::string scheme, path;
};

// "lxc:///system?socket=/run/x" -> "lxc", "/system". The transport ("+unix") and parameters were the client's
// business.
OpenName split_name(const std::string& name) {
  OpenName open;
  const auto colon = name.find(':');
  if (colon == std::string::npos) return {"", ""};
  open.scheme = name.substr(0, std::min(colon, name.find('+')));
  std::string rest = name.substr(colon + 1);
  rest = rest.substr(0, rest.find_first_of("?#"));
  if (rest.starts_with("//")) {
    const auto slash = rest.find('/', 2);  // skips the host, if any
    rest = slash == std::string::npos ? "" : rest.substr(slash);
  }
  open.path = rest;
  return open;
}

std::string user_name_of(uid_t uid) {
  std::array<char, 4096> buffer;
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return std::to_string(uid);
  return found->pw_name;
}

std::optional<std::uint64_t> number_of(const TypedValue& value) {
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&value); number != nullptr && *number >= 0)
    return static_cast<std::uint64_t>(*number);
  if (const auto* number = std::get_if<std::uint32_t>(&value)) return *number;
  return std::nullopt;
}

bool is_administrator(const SessionHost& host, const Peer& peer) {
  if (!host.checks_owner || peer.uid == 0) return true;
  const auto is_one = [&](gid_t gid) {
    return std::find(host.admin_groups.begin(), host.admin_groups.end(), gid) != host.admin_groups.end();
  };
  return is_one(peer.gid) || std::any_of(peer.groups.begin(), peer.groups.end(), is_one);
}

}  // namespace

Session::Session(const SessionHost& host, Peer peer, std::uint64_t id, bool read_only, AuthMethod method)
    : host_(host),
      peer_(std::move(peer)),
      id_(id),
      is_socket_read_only_(read_only),
      method_(method),
      // uid 0 needs nobody's permission, as in libvirtd
      is_authenticated_(method == AuthMethod::kNone || peer_.uid == 0) {
  caller_.uid = peer_.uid;
  caller_.gid = peer_.gid;
  caller_.pid = peer_.pid;
  caller_.connection_id = id;
  caller_.read_only = read_only;
  caller_.owns_only = !is_administrator(host_, peer_);
}

Result<void> Session::open(const std::string& name, bool read_only) {
  const OpenName open = split_name(name);
  if (!name.empty() && open.scheme.empty()) return fail(VIR_ERR_NO_CONNECT, quote(name));
  const OpenDriver* chosen = nullptr;
  for (const OpenDriver& candidate : host_.drivers)
    if (candidate.scheme == open.scheme) chosen = &candidate;
  const bool is_alias =
      open.scheme.empty() || open.scheme == "userns" || open.scheme == "lxc" || open.scheme == "test";
  if (chosen == nullptr && is_alias && !host_.drivers.empty()) chosen = &host_.drivers.front();
  if (chosen == nullptr) return fail(VIR_ERR_NO_CONNECT, printable(name));

  const std::string scheme = open.scheme.empty() ? "userns" : open.scheme;
  const std::string mode = host_.is_session_daemon ? "session" : "system";
  if (scheme != "test" && !open.path.empty() && open.path != "/" && open.path != "/system" && open.path != "/session")
    return fail(VIR_ERR_INTERNAL_ERROR,
                "unexpected URI path " + quote(open.path) + ", try " + scheme + ":///" + mode);
  const std::string user_name = user_name_of(peer_.uid);

  const std::lock_guard lock(mutex_);
  if (driver_ != nullptr) return fail(VIR_ERR_INTERNAL_ERROR, "connection is already open");
  uri_ = scheme == "test" ? "test://" + (open.path.empty() || open.path == "/" ? "/default" : open.path)
                          : scheme + ":///" + mode;
  caller_.read_only = is_socket_read_only_ || read_only;
  if (caller_.user_name.empty()) caller_.user_name = user_name;
  driver_ = chosen->driver;
  return {};
}

std::string Session::uri() const {
  const std::lock_guard lock(mutex_);
  return uri_;
}

Caller Session::caller() const {
  const std::lock_guard lock(mutex_);
  return caller_;
}

Result<void> Session::set_identity(const TypedParams& params) {
  Caller told = caller();
  for (const TypedParam& param : params) {
    const auto number = number_of(param.value);
    const auto* text = std::get_if<std::string>(&param.value);
    if (param.field == VIR_CONNECT_IDENTITY_UNIX_USER_ID && number && *number <= 0xfffffffe) {
      told.uid = static_cast<uid_t>(*number);
    } else if (param.field == VIR_CONNECT_IDENTITY_UNIX_GROUP_ID && number && *number <= 0xfffffffe) {
      told.gid = static_cast<gid_t>(*number);
    } else if (param.field == VIR_CONNECT_IDENTITY_PROCESS_ID && number && *number <= 0x7fffffff) {
      told.pid = static_cast<pid_t>(*number);
    } else if (param.field == VIR_CONNECT_IDENTITY_USER_NAME && text != nullptr) {
      told.user_name = printable(*text);
    } else if (param.field != VIR_CONNECT_IDENTITY_GROUP_NAME && param.field != VIR_CONNECT_IDENTITY_PROCESS_TIME &&
               param.field != VIR_CONNECT_IDENTITY_SASL_USER_NAME &&
               param.field != VIR_CONNECT_IDENTITY_X509_DISTINGUISHED_NAME &&
               param.field != VIR_CONNECT_IDENTITY_SELINUX_CONTEXT) {
      return fail(VIR_ERR_INVALID_ARG,
                  "identity parameter " + quote(param.field) + " is not known or has the wrong type");
    }
  }
  if (peer_.uid != 0) {  // may say who it is, which is known already
    if (told.uid != peer_.uid) return fail(VIR_ERR_ACCESS_DENIED, "only root may speak for another identity");
    return {};
  }
  // Whom root speaks for has that user's rights, and none of a group, which nobody has proved.
  if (told.uid != caller().uid && told.user_name == caller().user_name) told.user_name = user_name_of(told.uid);
  const std::lock_guard lock(mutex_);
  caller_.owns_only = host_.checks_owner && told.uid != 0;
  caller_.uid = told.uid;
  caller_.gid = told.gid;
  caller_.pid = told.pid;
  caller_.user_name = told.user_name;
  return {};
}

Result<std::int32_t> Session::add_registration(std::int32_t event_id, std::optional<Uuid> domain, bool is_legacy) {
  if (event_id < 0 || event_id > VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE)
    return fail(VIR_ERR_INTERNAL_ERROR, "unsupported event ID " + std::to_string(event_id));
  const std::lock_guard lock(mutex_);
  if (registrations_.size() >= kMaxRegistrations)
    return fail(VIR_ERR_OPERATION_FAILED, "too many event registrations");
  for (const auto& [id, registration] : registrations_)
    if (is_legacy && registration.is_legacy && registration.event_id == event_id)
      return fail(VIR_ERR_INTERNAL_ERROR, "domain event " + std::to_string(event_id) + " already registered");
  const std::int32_t id = next_callback_id_++;
  registrations_[id] = {id, event_id, domain, is_legacy};
  return id;
}

Result<void> Session::remove_registration(std::int32_t callback_id) {
  const std::lock_guard lock(mutex_);
  const auto found = registrations_.find(callback_id);
  if (found == registrations_.end() || found->second.is_legacy)
    return fail(VIR_ERR_INTERNAL_ERROR, "domain event callback " + std::to_string(callback_id) + " not registered");
  registrations_.erase(found);
  return {};
}

Result<void> Session::remove_legacy_registration(std::int32_t event_id) {
  const std::lock_guard lock(mutex_);
  const auto erased = std::erase_if(
      registrations_, [&](const auto& item) { return item.second.is_legacy && item.second.event_id == event_id; });
  if (erased == 0)
    return fail(VIR_ERR_INTERNAL_ERROR, "domain event " + std::to_string(event_id) + " not registered");
  return {};
}

std::vector<Registration> Session::registrations_for(std::int32_t event_id, const Uuid& domain) const {
  const std::lock_guard lock(mutex_);
  std::vector<Registration> matching;
  for (const auto& [id, registration] : registrations_)
    if (registration.event_id == event_id && (!registration.domain || *registration.domain == domain))
      matching.push_back(registration);
  return matching;
}

std::size_t Session::registration_count() const {
  const std::lock_guard lock(mutex_);
  return registrations_.size();
}

Result<void> Session::set_close_callback(bool on) {
  const std::lock_guard lock(mutex_);
  if (has_close_callback_ == on)
    return fail(VIR_ERR_OPERATION_INVALID,
                on ? "a close callback is already registered" : "a close callback is not registered");
  has_close_callback_ = on;
  return {};
}

}  // namespace virtuserns::rpc
