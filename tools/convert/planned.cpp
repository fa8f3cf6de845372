#include "tools/convert/planned.h"

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "tools/convert/domains.h"
#include "xml/domain.h"

namespace virtuserns::convert {
namespace {

void append(std::vector<Finding>& to, std::vector<Finding> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

std::string name_of(const Machine& machine, const Settings& settings) {
  return settings.name.empty() ? machine.vm.domain.name : settings.name;
}

}  // namespace

Result<Planned> make_plan(SourceVm vm, const Settings& settings, const std::string& workplace) {
  Planned planned;
  planned.machine = TRY(study_machine(std::move(vm), settings, workplace));
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

Error say_converted(const std::string& name) {
  return fail(VIR_ERR_OPERATION_INVALID, quote(name) + " is converted already; 'virt-userns-convert rollback " +
                                             name + "' undoes it, --name makes another");
}

void set_done(Planned& planned, std::vector<Finding> done) {
  auto& findings = planned.report.findings;
  findings = planned.machine.findings;
  append(findings, planned.mapped.findings);
  append(findings, std::move(done));
}

Result<void> define_container(const Planned& planned, Job& job, bool is_autostarted) {
  auto state = job.state();
  // Written down before it is there: whoever undoes this finds it by its uuid.
  state.domain_uuid = format_uuid(planned.mapped.def.uuid);
  TRY(job.save(state));
  const auto xml = xml::format_domain(planned.mapped.def, xml::FormatKind::kInactive, xml::Secrets::kShow);
  return define_domain(state.uri, xml, is_autostarted);
}

}  // namespace virtuserns::convert
