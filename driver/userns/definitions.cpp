// What the base asks of this module about definitions: files, and what is said of a run.
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/validate.h"
#include "driver/userns/backend.h"
#include "xml/domain.h"

namespace virtuserns::userns {

Result<void> Backend::store_definition(const DomainDef& def) {
  TRY(store_.save(format_uuid(def.uuid),
                  xml::format_domain(without_live_values(def), xml::FormatKind::kInactive, xml::Secrets::kShow)));
  broker_.restore(
      def);  // its name and its metadata, which say whose ids are whose, change in other ways than by define
  return {};
}

Result<void> Backend::remove_definition(const Uuid& uuid) { return store_.remove(format_uuid(uuid)); }

Result<void> Backend::store_autostart(const Uuid& uuid, bool on) {
  return store_.set_autostart(format_uuid(uuid), on);
}

void Backend::load_definitions() {
  auto loaded = store_.load();
  if (!loaded) return log_error("userns", "definitions: " + loaded.error().text);
  for (const auto& problem : loaded->problems) log_error("userns", problem);
  for (const auto& item : loaded->items) {
    const auto load = [&]() -> Result<void> {
      DomainDef def = TRY(xml::parse_domain(item.content));
      TRY(prepare(def));
      if (format_uuid(def.uuid) != item.name) return fail(VIR_ERR_INTERNAL_ERROR, "holds another uuid than its name");
      const Job job = TRY(claim(def.name, def.uuid));
      restore(def);
      const Locked domain = job.look();
      domain->autostart = item.autostart;
      assign_persistent_def(*domain, std::move(def));
      return {};
    };
    if (auto done = load(); !done) {
      log_error("userns", "definition " + quote(item.name) + " was set aside: " + done.error().text);
      store_.set_aside(item.name);
    }
  }
}

void Backend::live_changed(const std::shared_ptr<DriverDomain>& domain) { save_status(typed(domain)); }

std::vector<std::string> Backend::live_messages_locked(const DriverDomain& domain) {
  const RunPtr& run = static_cast<const UsernsDomain&>(domain).run;
  return run ? run->messages : std::vector<std::string>();
}

// A controller may need seconds: the housekeeper waits for it.
void Backend::autodestroy(const Uuid& uuid) {
  housekeeper_.submit([this, uuid] {
    const auto ended = end_by_destroy(uuid);
    if (!ended && ended.error().code != VIR_ERR_NO_DOMAIN) log_error("userns", "autodestroy: " + ended.error().text);
  });
}

// The directories of a running domain's overlays are written by nobody else. Two that start at the same moment may miss one
// another; what they write in the manner of overlays is locked by their controllers besides.
Result<void> Backend::refuse_written_bases(const DomainDef& def) {
  for (const auto& object : domains_.all()) {
    const auto other = lock_domain(object);
    if (!other->is_active() || other->def.uuid == def.uuid) continue;
    // Owners are not told of domains that are not theirs.
    const std::string name = def.userns.owner ? "another domain" : "domain " + quote(other->def.name);
    if (const auto base = find_written_base(def, other->def))
      return fail(VIR_ERR_RESOURCE_BUSY, quote(*base) + " of <userns:overlay> is written to by " + name +
                                             ", which runs: end that, or name another directory");
    if (const auto base = find_written_base(other->def, def))
      return fail(VIR_ERR_RESOURCE_BUSY,
                  name + ", which runs, has " + quote(*base) +
                      " in an overlay, and nobody else writes there meanwhile: end that, or let "
                      "this one have <readonly/> or an overlay over it");
  }
  return {};
}

}  // namespace virtuserns::userns
