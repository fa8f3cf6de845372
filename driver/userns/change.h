// Backend::change_defs: how a definition, the running one, or both are changed. Internal to driver/userns.
#pragma once

#include "driver/userns/backend.h"

namespace virtuserns::userns {

// `change` runs on copies of the affected definitions; then `apply_live` makes it true of the running domain; then the
// persistent definition is on disk; then both replace the originals. After an error of any step the originals stand
// (what apply_live did to the kernel before a failing save is what the next change or start repairs).
template <class Change, class ApplyLive>
Result<void> Backend::change_defs(const Uuid& uuid, unsigned flags, const Change& change,
                                  const ApplyLive& apply_live) {
  const Job job = TRY(take_job(uuid));
  std::optional<DomainDef> live, config;
  RunPtr run;
  {
    const Locked domain = job.look();
    const AffectedDefs defs = TRY(affected_defs(*domain, flags));
    if (defs.live) live = *defs.live;
    if (defs.config) config = *defs.config;
    run = domain->run;
  }
  TRY(change(AffectedDefs{live ? &*live : nullptr, config ? &*config : nullptr}));
  if (live) TRY(apply_live(run, *live));
  if (config) TRY(save_definition(*config));
  {
    const Locked domain = job.look();
    // It may have ended meanwhile: then there is no running definition to change.
    if (live && domain->is_active() && domain->run == run) domain->def = std::move(*live);
    if (config && domain->persistent) {
      domain->config_def() = std::move(*config);
      domain->updated = domain->is_active();
    }
  }
  if (live) save_status(job.domain);
  return {};
}

}  // namespace virtuserns::userns
