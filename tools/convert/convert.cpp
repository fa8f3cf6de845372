#include "tools/convert/convert.h"

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "tools/convert/domains.h"
#include "tools/convert/machine.h"
#include "tools/convert/rollback.h"
#include "tools/convert/target.h"
#include "xml/domain.h"

namespace virtuserns::convert {
namespace {

void append(std::vector<Finding>& to, std::vector<Finding> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

std::string name_of(const Machine& machine, const Settings& settings) {
  return settings.name.empty() ? machine.vm.domain.name : settings.name;
}

// All that is said before anything is written.
struct Planned {
  Machine machine;
  Parts parts;
  Mapped mapped;
  Report report;
};

Result<Planned> make_plan(const std::string& word, const Settings& settings, const std::string& workplace) {
  Planned planned;
  planned.machine = TRY(study_machine(word, settings, workplace));
  auto& report = planned.report;
  report.domain = name_of(planned.machine, settings);
  TRY(check_job_name(report.domain));
  report.findings = planned.machine.findings;
  planned.parts = make_parts(planned.machine, settings.mode, settings.folder + "/" + report.domain, report.findings);
  planned.mapped = TRY(map_machine(planned.machine, settings, planned.parts.filesystems, planned.parts.parts));
  append(report.findings, planned.mapped.findings);
  append(report.findings, planned.machine.rule_findings);
  return planned;
}

JobState first_state(const Planned& planned, const Settings& settings) {
  JobState state;
  state.mode = settings.mode;
  state.uri = settings.uri;
  for (const auto& disk : planned.machine.vm.disks) state.disks.push_back({disk.target, disk.chain});
  state.places = planned.machine.layout.places;
  state.source_xml = planned.machine.vm.xml;
  return state;
}

// A run that was cut short is undone; anything else is in the way.
Result<void> clear_way(const std::string& name, const Settings& settings) {
  if (!Job::exists(settings.folder, name)) return {};
  auto job = TRY(Job::open(settings.folder, name));
  const auto phase = job.state().phase;
  if (phase != Phase::kConverting && phase != Phase::kRollingBack)
    return fail(VIR_ERR_OPERATION_INVALID, quote(name) + " is converted already; 'virt-userns-convert rollback " +
                                               name + "' undoes it, --name makes another");
  settings.say("removing what a conversion that was cut short has left");
  return undo_job(job);
}

Result<void> define(const Planned& planned, Job& job) {
  auto state = job.state();
  // Written down before it is there: whoever undoes this finds it by its uuid.
  state.domain_uuid = format_uuid(planned.mapped.def.uuid);
  TRY(job.save(state));
  const auto xml = xml::format_domain(planned.mapped.def, xml::FormatKind::kInactive, xml::Secrets::kShow);
  TRY(define_domain(state.uri, xml, planned.machine.vm.autostart.value_or(false)));
  state.phase = Phase::kConverted;
  return job.save(std::move(state));
}

Result<void> carry_out(Planned& planned, const Settings& settings, const std::string& workplace, Job& job) {
  auto made = TRY(make_target(planned.machine, settings, workplace, job));
  auto& findings = planned.report.findings;
  findings = planned.machine.findings;
  append(findings, planned.mapped.findings);
  append(findings, std::move(made));
  settings.say("defining the container");
  return define(planned, job);
}

}  // namespace

Result<Report> plan_machine(const std::string& word, const Settings& settings, const std::string& workplace) {
  return std::move(TRY(make_plan(word, settings, workplace)).report);
}

Result<Report> convert_machine(const std::string& word, const Settings& settings, const std::string& workplace) {
  settings.say("looking at " + quote(word));
  auto planned = TRY(make_plan(word, settings, workplace));
  auto& report = planned.report;
  TRY(clear_way(report.domain, settings));
  if (worst(report.findings) == Severity::kBlock && !settings.is_forced) return std::move(report);
  const auto uuid = format_uuid(planned.mapped.def.uuid);
  TRY(check_is_free(settings.uri, report.domain, uuid));
  auto job = TRY(Job::create(settings.folder, report.domain, first_state(planned, settings)));
  if (auto done = carry_out(planned, settings, workplace, job); !done) {
    auto undone = undo_job(job);
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
