#include "tools/convert/convert.h"

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "tools/convert/cutover.h"
#include "tools/convert/domains.h"
#include "tools/convert/planned.h"
#include "tools/convert/rollback.h"
#include "tools/convert/target.h"

namespace virtuserns::convert {
namespace {

// A run that was cut short is undone; anything else is in the way.
Result<void> clear_way(const std::string& name, const Settings& settings) {
  if (!Job::exists(settings.folder, name)) return {};
  auto job = TRY(Job::open(settings.folder, name));
  const auto phase = job.state().phase;
  if (phase != Phase::kConverting && phase != Phase::kRollingBack) return say_converted(name);
  if (job.state().live)
    return fail(VIR_ERR_OPERATION_INVALID, "a cut-over of " + quote(name) +
                                               " was cut short; run that again, by --live, or "
                                               "'virt-userns-convert rollback " +
                                               name + "'");
  settings.say("removing what a conversion that was cut short has left");
  (void)TRY(undo_job(job, settings));
  return {};
}

Result<void> carry_out(Planned& planned, const Settings& settings, const std::string& workplace, Job& job) {
  set_done(planned, TRY(make_target(planned.machine, settings, workplace, job)));
  settings.say("defining the container");
  TRY(define_container(planned, job, planned.machine.vm.autostart.value_or(false)));
  auto state = job.state();
  state.phase = Phase::kConverted;
  return job.save(std::move(state));
}

}  // namespace

Result<Report> plan_machine(const std::string& word, const Settings& settings, const std::string& workplace) {
  return std::move(TRY(make_plan(TRY(read_source(word, settings.source)), settings, workplace)).report);
}

Result<Report> convert_machine(const std::string& word, const Settings& settings, const std::string& workplace) {
  settings.say("looking at " + quote(word));
  if (settings.live.is_wanted) return take_over(word, settings, workplace);
  auto planned = TRY(make_plan(TRY(read_source(word, settings.source)), settings, workplace));
  auto& report = planned.report;
  TRY(clear_way(report.domain, settings));
  if (worst(report.findings) == Severity::kBlock && !settings.is_forced) return std::move(report);
  const auto uuid = format_uuid(planned.mapped.def.uuid);
  TRY(check_is_free(settings.uri, report.domain, uuid));
  auto job = TRY(Job::create(settings.folder, report.domain, first_state(planned, settings)));
  if (auto done = carry_out(planned, settings, workplace, job); !done) {
    auto undone = undo_job(job, settings);
    if (!undone)
      return fail(done.error().code, done.error().text + "; and it could not be undone: " + undone.error().text);
    return std::move(done).error();
  }
  return std::move(report);
}

Result<void> start_converted(const std::string& name, const Settings& settings) {
  settings.say("starting the container");
  const auto job = TRY(Job::open(settings.folder, name));
  TRY(start_domain(settings.uri, job.state().domain_uuid), quote(name) + " is converted, and does not start");
  return {};
}

}  // namespace virtuserns::convert
