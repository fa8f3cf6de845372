#include <libvirt/libvirt.h>

#include <algorithm>
#include <set>

#include "conf/domain_objects.h"
#include "driver/rpc/access.h"
#include "driver/rpc/handlers.h"

namespace virtuserns::rpc {
namespace {

constexpr unsigned kListFlags = VIR_CONNECT_LIST_DOMAINS_ACTIVE | VIR_CONNECT_LIST_DOMAINS_INACTIVE |
                                VIR_CONNECT_LIST_DOMAINS_PERSISTENT | VIR_CONNECT_LIST_DOMAINS_TRANSIENT |
                                VIR_CONNECT_LIST_DOMAINS_RUNNING | VIR_CONNECT_LIST_DOMAINS_PAUSED |
                                VIR_CONNECT_LIST_DOMAINS_SHUTOFF | VIR_CONNECT_LIST_DOMAINS_OTHER |
                                VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE | VIR_CONNECT_LIST_DOMAINS_NO_MANAGEDSAVE |
                                VIR_CONNECT_LIST_DOMAINS_AUTOSTART | VIR_CONNECT_LIST_DOMAINS_NO_AUTOSTART |
                                VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT | VIR_CONNECT_LIST_DOMAINS_NO_SNAPSHOT |
                                VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT | VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT;

bool is_active(const DomainSummary& domain) { return domain.ref.id != -1; }

// A group of flags selects when none of the group is given, or one that is true of the domain.
struct Fact {
  unsigned flag;
  bool holds;
};
template <std::size_t N>
bool selects(unsigned flags, const Fact (&group)[N]) {
  bool is_given = false;
  for (const Fact& fact : group) {
    if ((flags & fact.flag) != 0 && fact.holds) return true;
    is_given = is_given || (flags & fact.flag) != 0;
  }
  return !is_given;
}

bool matches(const DomainSummary& d, unsigned flags) {
  const bool is_told_apart =
      d.state == VIR_DOMAIN_RUNNING || d.state == VIR_DOMAIN_PAUSED || d.state == VIR_DOMAIN_SHUTOFF;
  return selects(flags, {{VIR_CONNECT_LIST_DOMAINS_ACTIVE, is_active(d)},
                         {VIR_CONNECT_LIST_DOMAINS_INACTIVE, !is_active(d)}}) &&
         selects(flags, {{VIR_CONNECT_LIST_DOMAINS_PERSISTENT, d.persistent},
                         {VIR_CONNECT_LIST_DOMAINS_TRANSIENT, !d.persistent}}) &&
         selects(flags, {{VIR_CONNECT_LIST_DOMAINS_RUNNING, d.state == VIR_DOMAIN_RUNNING},
                         {VIR_CONNECT_LIST_DOMAINS_PAUSED, d.state == VIR_DOMAIN_PAUSED},
                         {VIR_CONNECT_LIST_DOMAINS_SHUTOFF, d.state == VIR_DOMAIN_SHUTOFF},
                         {VIR_CONNECT_LIST_DOMAINS_OTHER, !is_told_apart}}) &&
         selects(flags, {{VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE, d.has_managed_save},
                         {VIR_CONNECT_LIST_DOMAINS_NO_MANAGEDSAVE, !d.has_managed_save}}) &&
         selects(flags, {{VIR_CONNECT_LIST_DOMAINS_AUTOSTART, d.autostart},
                         {VIR_CONNECT_LIST_DOMAINS_NO_AUTOSTART, !d.autostart}}) &&
         selects(flags, {{VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT, d.has_snapshot},
                         {VIR_CONNECT_LIST_DOMAINS_NO_SNAPSHOT, !d.has_snapshot}}) &&
         selects(flags, {{VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT, d.has_checkpoint},
                         {VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT, !d.has_checkpoint}});
}

Result<std::vector<DomainSummary>> active_domains(Call& call, bool active) {
  std::vector<DomainSummary> domains = TRY(visible_domains(call));
  std::erase_if(domains, [&](const DomainSummary& domain) { return is_active(domain) != active; });
  return domains;
}

}  // namespace

Result<wire::IntReply> connect_num_of_domains(Call& call) {
  return wire::IntReply{static_cast<std::int32_t>(TRY(active_domains(call, true)).size())};
}

Result<wire::IntReply> connect_num_of_defined_domains(Call& call) {
  return wire::IntReply{static_cast<std::int32_t>(TRY(active_domains(call, false)).size())};
}

Result<wire::IdsReply> connect_list_domains(Call& call, const wire::IntArgs& args) {
  wire::IdsReply reply;
  for (const DomainSummary& domain : TRY(active_domains(call, true)))
    if (static_cast<std::int64_t>(reply.ids.size()) < args.value) reply.ids.push_back(domain.ref.id);
  return reply;
}

Result<wire::NamesReply> connect_list_defined_domains(Call& call, const wire::IntArgs& args) {
  wire::NamesReply reply;
  for (const DomainSummary& domain : TRY(active_domains(call, false)))
    if (static_cast<std::int64_t>(reply.names.size()) < args.value) reply.names.push_back(domain.ref.name);
  return reply;
}

Result<wire::ListAllReply> connect_list_all_domains(Call& call, const wire::ListAllArgs& args) {
  TRY(refuse_unknown_flags(args.flags, kListFlags, "virConnectListAllDomains"));
  wire::ListAllReply reply;
  for (DomainSummary& domain : TRY(visible_domains(call))) {
    if (!matches(domain, args.flags)) continue;
    ++reply.count;
    if (args.need_results != 0) reply.domains.push_back(std::move(domain.ref));
  }
  if (reply.domains.size() > wire::kMaxDomains) return fail(VIR_ERR_RPC, "too many domains for one reply");
  return reply;
}

Result<wire::DomainReply> domain_lookup_by_id(Call& call, const wire::LookupIdArgs& args) {
  return wire::DomainReply{TRY(visible_or(call, call.driver->lookup_by_id(args.id), no_domain_with_id(args.id)))};
}

Result<wire::DomainReply> domain_lookup_by_name(Call& call, const wire::LookupNameArgs& args) {
  return wire::DomainReply{
      TRY(visible_or(call, call.driver->lookup_by_name(args.name), no_domain_with_name(args.name)))};
}

Result<wire::DomainReply> domain_lookup_by_uuid(Call& call, const wire::LookupUuidArgs& args) {
  return wire::DomainReply{
      TRY(visible_or(call, call.driver->lookup_by_uuid(args.uuid), no_domain_with_uuid(args.uuid)))};
}

Result<wire::AllStatsReply> connect_get_all_domain_stats(Call& call, const wire::AllStatsArgs& args) {
  std::vector<Uuid> uuids;
  for (const DomainRef& domain : args.domains) uuids.push_back(domain.uuid);
  wire::AllStatsReply reply;
  if (call.caller.owns_only) {
    std::set<Uuid> own;
    for (const DomainSummary& domain : TRY(visible_domains(call))) own.insert(domain.ref.uuid);
    if (uuids.empty()) uuids.assign(own.begin(), own.end());
    std::erase_if(uuids, [&](const Uuid& uuid) { return !own.contains(uuid); });
    if (uuids.empty()) return reply;  // to the driver it means all
  }
  for (DomainStats& stats : TRY(call.driver->all_stats(uuids, args.stats, args.flags)))
    reply.records.push_back({std::move(stats.ref), std::move(stats.params)});
  if (reply.records.size() > wire::kMaxDomains) return fail(VIR_ERR_RPC, "too many domains for one reply");
  return reply;
}

}  // namespace virtuserns::rpc
