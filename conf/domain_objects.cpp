#include "conf/domain_objects.h"

#include <algorithm>

namespace virtuserns {

Error no_domain_with_uuid(const Uuid& uuid) {
  return fail(VIR_ERR_NO_DOMAIN, "no domain with matching uuid '" + format_uuid(uuid) + "'");
}

Error no_domain_with_name(const std::string& name) {
  return fail(VIR_ERR_NO_DOMAIN, "no domain with matching name '" + name + "'");
}

Error no_domain_with_id(int id) {
  return fail(VIR_ERR_NO_DOMAIN, "no domain with matching id " + std::to_string(id));
}

Error domain_not_running() { return fail(VIR_ERR_OPERATION_INVALID, "domain is not running"); }

Result<Impact> resolve_impact(unsigned flags, bool is_active, bool is_persistent) {
  Impact impact{(flags & VIR_DOMAIN_AFFECT_LIVE) != 0, (flags & VIR_DOMAIN_AFFECT_CONFIG) != 0};
  if (!impact.live && !impact.config) (is_active ? impact.live : impact.config) = true;
  if (impact.live && !is_active) return domain_not_running();
  if (impact.config && !is_persistent) {
    return fail(VIR_ERR_OPERATION_INVALID, "transient domains do not have any persistent config");
  }
  return impact;
}

Result<AffectedDefs> affected_defs(DomainObject& domain, unsigned flags) {
  const Impact impact = TRY(resolve_impact(flags, domain.is_active(), domain.persistent));
  AffectedDefs defs;
  if (impact.live) defs.live = &domain.def;
  if (impact.config) defs.config = &domain.config_def();
  return defs;
}

Result<const DomainDef*> queried_def(const DomainObject& domain, unsigned flags) {
  if ((flags & VIR_DOMAIN_AFFECT_LIVE) && (flags & VIR_DOMAIN_AFFECT_CONFIG)) {
    return fail(VIR_ERR_INVALID_ARG,
                "Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive");
  }
  const Impact impact = TRY(resolve_impact(flags, domain.is_active(), domain.persistent));
  return impact.live ? &domain.def : &domain.config_def();
}

Result<void> require_active(const DomainObject& domain) {
  if (!domain.is_active()) return domain_not_running();
  return {};
}

bool assign_persistent_def(DomainObject& domain, DomainDef def) {
  const bool was_defined = std::exchange(domain.persistent, true);
  if (domain.is_active()) {
    domain.next_def = std::move(def);
    domain.updated = true;
  } else {
    domain.def = std::move(def);
  }
  return was_defined;
}

Result<void> assign_transient_def(DomainObject& domain, DomainDef def) {
  if (domain.is_active()) {
    return fail(VIR_ERR_OPERATION_INVALID, "domain '" + domain.def.name + "' is already active");
  }
  if (domain.persistent) domain.next_def = std::move(domain.def);
  domain.def = std::move(def);
  return {};
}

void begin_running(DomainObject& domain, int id, int running_reason) {
  if (domain.persistent && !domain.next_def) domain.next_def = domain.def;
  domain.def.id = id;
  domain.updated = false;
  domain.set_state(VIR_DOMAIN_RUNNING, running_reason);
}

bool end_running(DomainObject& domain, int shutoff_reason) {
  domain.def.id = -1;
  domain.updated = false;
  domain.set_state(VIR_DOMAIN_SHUTOFF, shutoff_reason);
  if (domain.next_def) {
    domain.def = std::move(*domain.next_def);
    domain.next_def.reset();
  }
  return domain.persistent;
}

DomainDef without_live_values(DomainDef def) {
  const auto drop_alias = [](auto& devices) {
    for (auto& device : devices) {
      // Aliases that start with "ua-" are the user's own (libvirt's rule); all others were generated at start.
      if (device.alias && !device.alias->name.starts_with("ua-")) device.alias.reset();
    }
  };
  def.id = -1;
  drop_alias(def.disks);
  drop_alias(def.filesystems);
  drop_alias(def.interfaces);
  drop_alias(def.consoles);
  drop_alias(def.hostdevs);
  for (ConsoleDef& console : def.consoles) {
    if (console.type == "pty") console.source_path.clear();
    console.tty.clear();
  }
  for (InterfaceDef& link : def.interfaces) {
    if (link.target_dev.starts_with("vnet")) link.target_dev.clear();
  }
  return def;
}

bool passes_list_filter(const ListFacts& facts, unsigned flags) {
  const auto group = [flags](unsigned yes_bit, unsigned no_bit, bool fact) {
    if ((flags & (yes_bit | no_bit)) == 0) return true;
    return (flags & (fact ? yes_bit : no_bit)) != 0;
  };
  const unsigned state_bit = facts.state == VIR_DOMAIN_RUNNING   ? VIR_CONNECT_LIST_DOMAINS_RUNNING
                             : facts.state == VIR_DOMAIN_PAUSED  ? VIR_CONNECT_LIST_DOMAINS_PAUSED
                             : facts.state == VIR_DOMAIN_SHUTOFF ? VIR_CONNECT_LIST_DOMAINS_SHUTOFF
                                                                 : VIR_CONNECT_LIST_DOMAINS_OTHER;
  constexpr unsigned kStates = VIR_CONNECT_LIST_DOMAINS_RUNNING | VIR_CONNECT_LIST_DOMAINS_PAUSED |
                               VIR_CONNECT_LIST_DOMAINS_SHUTOFF | VIR_CONNECT_LIST_DOMAINS_OTHER;
  if ((flags & kStates) != 0 && (flags & state_bit) == 0) return false;
  return group(VIR_CONNECT_LIST_DOMAINS_ACTIVE, VIR_CONNECT_LIST_DOMAINS_INACTIVE, facts.active) &&
         group(VIR_CONNECT_LIST_DOMAINS_PERSISTENT, VIR_CONNECT_LIST_DOMAINS_TRANSIENT, facts.persistent) &&
         group(VIR_CONNECT_LIST_DOMAINS_AUTOSTART, VIR_CONNECT_LIST_DOMAINS_NO_AUTOSTART, facts.autostart) &&
         group(VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE, VIR_CONNECT_LIST_DOMAINS_NO_MANAGEDSAVE, facts.managed_save) &&
         group(VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT, VIR_CONNECT_LIST_DOMAINS_NO_SNAPSHOT, facts.snapshot) &&
         group(VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT, VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT, facts.checkpoint);
}

// ---- metadata ---------------------------------------------------------------------------------------------------

Result<std::string> get_metadata(const DomainDef& def, int type, const std::string& uri) {
  const auto present = [](const std::string& text) -> Result<std::string> {
    if (text.empty()) {
      return fail(VIR_ERR_NO_DOMAIN_METADATA, "Requested metadata element is not present");
    }
    return text;
  };
  switch (type) {
    case VIR_DOMAIN_METADATA_DESCRIPTION:
      return present(def.description);
    case VIR_DOMAIN_METADATA_TITLE:
      return present(def.title);
    case VIR_DOMAIN_METADATA_ELEMENT: {
      auto found = std::find_if(def.metadata.begin(), def.metadata.end(),
                                [&](const MetadataElement& element) { return element.uri == uri; });
      return present(found == def.metadata.end() ? std::string() : found->xml);
    }
    default:
      return fail(VIR_ERR_INVALID_ARG, "unknown metadata type '" + std::to_string(type) + "'");
  }
}

Result<void> set_metadata(DomainDef& def, int type, const std::optional<std::string>& value, const std::string& uri) {
  switch (type) {
    case VIR_DOMAIN_METADATA_DESCRIPTION:
      def.description = value.value_or("");
      return {};
    case VIR_DOMAIN_METADATA_TITLE:
      // The client library checks this too, but not every client is that library.
      if (value && value->find('\n') != std::string::npos) {
        return fail(VIR_ERR_INVALID_ARG, "metadata title can't contain newlines");
      }
      def.title = value.value_or("");
      return {};
    case VIR_DOMAIN_METADATA_ELEMENT:
      if (uri.empty()) return fail(VIR_ERR_INVALID_ARG, "metadata element needs a namespace uri");
      std::erase_if(def.metadata, [&](const MetadataElement& element) { return element.uri == uri; });
      if (value && !value->empty()) def.metadata.push_back({uri, *value});
      return {};
    default:
      return fail(VIR_ERR_INVALID_ARG, "unknown metadata type '" + std::to_string(type) + "'");
  }
}

// ---- names ------------------------------------------------------------------------------------------------------

Result<void> DomainNames::check(const std::string& name, const Uuid& uuid) const {
  if (auto found = names_.find(uuid); found != names_.end()) {
    if (found->second == name) return {};
    return fail(VIR_ERR_OPERATION_FAILED,
                "domain '" + found->second + "' is already defined with uuid " + format_uuid(uuid));
  }
  if (auto found = by_name_.find(name); found != by_name_.end()) {
    return fail(VIR_ERR_OPERATION_FAILED,
                "domain '" + name + "' already exists with uuid " + format_uuid(found->second));
  }
  return {};
}

void DomainNames::insert(const std::string& name, const Uuid& uuid) {
  by_name_[name] = uuid;
  names_[uuid] = name;
}

void DomainNames::erase(const Uuid& uuid) {
  auto found = names_.find(uuid);
  if (found == names_.end()) return;
  by_name_.erase(found->second);
  names_.erase(found);
}

Result<void> DomainNames::rename(const Uuid& uuid, const std::string& new_name) {
  auto found = names_.find(uuid);
  if (found == names_.end()) return no_domain_with_uuid(uuid);
  if (found->second == new_name) return fail(VIR_ERR_OPERATION_INVALID, "Can't rename domain to itself");
  if (by_name_.contains(new_name)) {
    return fail(VIR_ERR_OPERATION_INVALID, "domain with name '" + new_name + "' already exists");
  }
  by_name_.erase(found->second);
  by_name_[new_name] = uuid;
  found->second = new_name;
  return {};
}

std::optional<Uuid> DomainNames::find(const std::string& name) const {
  auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  return found->second;
}

}  // namespace virtuserns
