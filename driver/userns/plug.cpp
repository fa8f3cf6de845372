// Devices come to a domain that runs, and leave it, and passwords change in it: by its stem, which does it (driver/controller/plug.h).
#include <libvirt/libvirt.h>
#include <poll.h>

#include <algorithm>
#include <set>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/domain_devices.h"
#include "conf/password.h"
#include "conf/validate.h"
#include "driver/userns/backend.h"
#include "driver/userns/observe.h"

namespace virtuserns::userns {

namespace {

constexpr int kOpenTimeoutMs = 15'000;
constexpr int kPlugTimeoutMs = 30'000;  // beyond what the stem waits for the container

// As init got them (plan_network.cpp). Written down, because the number of a link changes when one before it goes.
void name_guest_links(DomainDef& def) {
  for (std::size_t i = 0; i < def.interfaces.size(); ++i)
    if (auto& name = def.interfaces[i].guest_dev; name.empty()) name = "eth" + std::to_string(i);
}

void name_guest_link(InterfaceDef& link, const DomainDef& others) {
  if (!link.guest_dev.empty()) return;
  std::set<std::string> taken;
  for (const auto& other : others.interfaces) taken.insert(other.guest_dev);
  for (const auto& hostdev : others.hostdevs) taken.insert(hostdev.source);
  for (std::size_t i = 0; link.guest_dev.empty(); ++i)
    if (const auto name = "eth" + std::to_string(i); !taken.count(name)) link.guest_dev = name;
}

// place_of() of its step.
std::string place_of(const DeviceDef& device) {
  if (const auto* fs = std::get_if<FilesystemDef>(&device)) return fs->target;
  if (const auto* disk = std::get_if<DiskDef>(&device)) return "/dev/" + disk->target_dev;
  if (const auto* link = std::get_if<InterfaceDef>(&device)) return link->guest_dev;
  if (const auto* hostdev = std::get_if<HostdevDef>(&device)) return hostdev->source;
  return {};
}

// Of a definition: it with one device, or with none.
DomainDef with_only(DomainDef def, const std::optional<DeviceDef>& device) {
  def.filesystems.clear();
  def.disks.clear();
  def.interfaces.clear();
  def.hostdevs.clear();
  if (device) (void)attach_to(def, *device);
  return def;
}

template <class Visit>
void for_each_device(const DomainDef& def, const Visit& visit) {
  for (const auto& device : def.filesystems) visit(DeviceDef(device));
  for (const auto& device : def.disks) visit(DeviceDef(device));
  for (const auto& device : def.interfaces) visit(DeviceDef(device));
  for (const auto& device : def.hostdevs) visit(DeviceDef(device));
}

bool contains(const std::vector<std::string>& places, const std::string& place) {
  return std::find(places.begin(), places.end(), place) != places.end();
}

Result<controller::DeviceAnswer> exchange(const SocketFd& stem, const controller::DeviceAsk& ask,
                                          std::span<const int> files) {
  TRY(send_packet(stem.get(), xdr::encode(ask), files));
  pollfd entry{stem.get(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, kPlugTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (ready == 0)
    return fail(VIR_ERR_OPERATION_TIMEOUT, "the privileged part of the domain's controller does not answer");
  const auto packet = TRY(recv_packet(stem.get()));
  if (packet.bytes.empty())
    return fail(
        VIR_ERR_OPERATION_FAILED,
        "the privileged part of the domain's controller is gone, or of an older virtusernsd that cannot do this");
  auto answer = TRY(xdr::decode_exact<controller::DeviceAnswer>(packet.bytes));
  if (const auto* error = std::get_if<controller::WireError>(&answer))
    return Error{error->code, error->sys_errno, error->text};
  return answer;
}

}  // namespace

template <class Wanted>
Result<Wanted> Backend::ask_stem(const Uuid& uuid, const controller::DeviceAsk& ask,
                                 std::span<const int> files) const {
  auto stem = Channel::connect(run_file(uuid, ".plug"));
  if (!stem)
    return fail(
        VIR_ERR_OPERATION_UNSUPPORTED,
        "this domain cannot be changed while it runs (" + stem.error().text +
            "): if it was started by an older virtusernsd, shut it down and start it again; devices can be changed with --config");
  auto answer = TRY(exchange(*stem, ask, files));
  auto* wanted = std::get_if<Wanted>(&answer);
  if (!wanted) return fail(VIR_ERR_INTERNAL_ERROR, "unexpected answer of the domain's stem");
  return std::move(*wanted);
}

Result<DevicePlan> Backend::plan_device(const DomainDef& live, const IdMaps& maps, const DeviceDef& device) const {
  const DomainDef only = with_only(live, device);
  return make_device_plan(only, maps, TRY(observe(only, host_, config_, paths_)));
}

Result<std::string> Backend::attach_live(DriverDomain& domain, DomainDef& live, DeviceDef device) {
  const RunPtr run = run_of(domain);
  name_guest_links(live);
  if (auto* link = std::get_if<InterfaceDef>(&device)) name_guest_link(*link, live);
  TRY(attach_to(live, device));
  assign_aliases(live);
  TRY(validate(live));
  auto planned = TRY(plan_device(live, run->maps, device));
  std::vector<Fd> sources;
  if (!planned.sources.empty()) {
    controller::OpenAsk ask;
    std::tie(ask.host_uid, ask.host_gid) = std::pair(*to_host(run->maps.uid, 0), *to_host(run->maps.gid, 0));
    ask.maps = run->maps;
    ask.sources = std::move(planned.sources);
    sources = TRY(open_sources(paths_.controller, ask, run->log_path, kOpenTimeoutMs));
  }
  std::vector<int> files;
  for (const auto& source : sources) files.push_back(source.get());
  auto asked = ask_stem<controller::Plugged>(run->uuid, planned.ask, files);
  if (!asked) settle_later(run);
  const auto plugged = TRY(std::move(asked));
  if (std::holds_alternative<InterfaceDef>(device) && !plugged.host_link.empty())
    live.interfaces.back().target_dev = plugged.host_link;
  std::string alias;
  for_each_device(live, [&](const DeviceDef& other) {
    if (other.index() == device.index() && place_of(other) == place_of(device)) alias = alias_of(other);
  });
  append_to_log(run->log_path, "attached " + alias + " at " + place_of(device));
  for (const auto& message : planned.messages) append_to_log(run->log_path, message);
  return alias;
}

Result<std::string> Backend::detach_live(DriverDomain& domain, DomainDef& live, const DeviceDef& device) {
  if (paths_.is_session)
    return fail(
        VIR_ERR_OPERATION_UNSUPPORTED,
        "a device of a session's domain cannot be detached while the domain runs; use --config for its next start");
  const RunPtr run = run_of(domain);
  name_guest_links(live);
  const DeviceDef found = TRY(detach_from(live, device));
  const controller::UnplugAsk ask{place_of(found)};
  auto asked = ask_stem<controller::Unplugged>(run->uuid, ask);
  if (!asked) settle_later(run);
  (void)TRY(std::move(asked));
  append_to_log(run->log_path, "detached " + alias_of(found) + " from " + ask.place);
  return alias_of(found);
}

// By its own file, and not by a program of the container's: there need be none, and nobody in there hears the password itself.
Result<void> Backend::set_user_password(const Caller&, const Uuid& uuid, const std::string& user,
                                        const std::string& password, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_PASSWORD_ENCRYPTED, "virDomainSetUserPassword"));
  const auto form = flags & VIR_DOMAIN_PASSWORD_ENCRYPTED ? PasswordForm::kHashed : PasswordForm::kPlain;
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  TRY(validate_password(user, password, form));
  if (paths_.is_session)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                "passwords of a session's domain are not set from outside: use 'virt-userns-exec DOMAIN -- passwd'");
  auto hash = form == PasswordForm::kHashed ? password : TRY(hash_password(password));
  const controller::PasswordAsk ask{user, std::move(hash)};
  (void)TRY(ask_stem<controller::PasswordSet>(uuid, ask));
  append_to_log(run->log_path, "the password of user " + quote(user) + " was set");
  return {};
}

RunPtr Backend::run_of(DriverDomain& domain) {
  auto& ours = static_cast<UsernsDomain&>(domain);
  const std::lock_guard lock(ours.mutex);
  return ours.run;
}

// An answer that did not come may have been a yes.
void Backend::settle_later(const RunPtr& run) {
  housekeeper_.submit([this, weak = std::weak_ptr(run)] {
    if (const auto alive = weak.lock()) settle_devices(alive);
  });
}

// The former daemon was killed between what the stem did and what it wrote down about it: what is not written down goes, and so
// does what is written down and not there.
void Backend::settle_devices(const RunPtr& run) {
  const auto job = take_job(run->uuid);
  if (!job) return;
  DomainDef live;
  {
    const Locked domain = job->look();
    if (domain->run != run || !domain->is_active()) return;
    live = domain->def;
  }
  const auto places = ask_stem<controller::Places>(run->uuid, controller::PlacesAsk{});
  if (!places) return;  // of an older program: nothing was ever plugged in
  name_guest_links(live);
  std::vector<DeviceDef> gone;
  std::vector<std::string> known;
  for_each_device(live, [&](const DeviceDef& device) {
    known.push_back(place_of(device));
    if (known.back() != "/" && !contains(places->all, known.back())) gone.push_back(device);
  });
  for (const auto& place : places->plugged)
    if (!contains(known, place))
      if (auto done = ask_stem<controller::Unplugged>(run->uuid, controller::UnplugAsk{place}); !done)
        log_warning("userns",
                    "domain " + quote(live.name) + ": take back what was being attached: " + done.error().text);
  if (gone.empty()) return;
  for (const auto& device : gone) (void)detach_from(live, device);
  {
    const Locked domain = job->look();
    if (domain->run != run || !domain->is_active()) return;
    domain->def = std::move(live);
  }
  save_status(job->domain);
}

}  // namespace virtuserns::userns
