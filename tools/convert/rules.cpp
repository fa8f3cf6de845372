#include "tools/convert/rules.h"

#include <fcntl.h>

#include <algorithm>

#include "tools/convert/guest.h"
#include "tools/convert/originals.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

// What a rule could not read is part of the answer: it may have had something to say.
void report_refused(Guest& guest) {
  for (const auto& [path, reason] : guest.files.refused())
    guest.add(Severity::kLoss, path, "was not looked at: " + reason, "look at it yourself");
}

// A guest can make its files say as much as it likes; what is worst is kept.
void limit_findings(std::vector<Finding>& findings) {
  constexpr std::size_t kMaxFindings = 500;
  if (findings.size() <= kMaxFindings) return;
  std::stable_sort(findings.begin(), findings.end(),
                   [](const Finding& a, const Finding& b) { return a.severity > b.severity; });
  const auto more = findings.size() - kMaxFindings;
  findings.resize(kMaxFindings);
  findings.push_back({Severity::kLoss, "findings", std::to_string(more) + " more are left out, none of them worse",
                      "look at the guest yourself"});
}

void report_hard_links(Guest& guest) {
  for (const auto& path : guest.files.staged())
    if (guest.files.link_count(path) > 1)
      guest.add(Severity::kNote, path, "has other names (hard links), which keep what it was");
}

// Every edit is told: those that no finding names, by file or as a unit, are told here.
void report_rest(Guest& guest) {
  const auto is_told = [&](const std::string& path) {
    const auto name = path.substr(path.rfind('/') + 1);
    return std::any_of(guest.findings.begin(), guest.findings.end(), [&](const Finding& finding) {
      return finding.object == path || finding.object.find(name) != std::string::npos ||
             finding.text.find(name) != std::string::npos;
    });
  };
  for (const auto& path : guest.files.staged())
    if (!is_told(path)) guest.add(Severity::kChange, path, guest.files.exists(path) ? "is changed" : "is removed");
}

void apply_rules(Guest& guest) {
  for (const auto& rule : rules()) {
    auto& findings = guest.findings;
    const auto before = static_cast<std::ptrdiff_t>(findings.size());
    rule.apply(guest);
    std::for_each(findings.begin() + before, findings.end(), [&](Finding& finding) { finding.rule = rule.name; });
  }
  report_rest(guest);
  report_hard_links(guest);
  report_refused(guest);
  limit_findings(guest.findings);
}

// A duplicate: the handle that a Guest's files keep is their own.
Result<GuestFiles> open_again(const DirFd& root) {
  DirFd copy(::fcntl(root.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) return sys_fail("open the guest's root again");
  return GuestFiles(std::move(copy));
}

}  // namespace

const std::vector<Rule>& rules() {
  static const std::vector<Rule> kRules = {
      {"system", apply_system},     {"machine-id", apply_machine_id},
      {"labels", apply_labels},     {"boot-packages", apply_boot_packages},
      {"fstab", apply_fstab},       {"mount-units", apply_mount_units},
      {"crypttab", apply_crypttab}, {"network", apply_network},
      {"modules", apply_modules},   {"sysctl", apply_sysctl},
      {"services", apply_services}, {"consoles", apply_consoles},
      {"logs", apply_logs},         {"cloud-init", apply_cloud_init},
  };
  return kRules;
}

std::vector<Finding> plan_guest(const DirFd& root, const GuestOptions& options) {
  auto files = open_again(root);
  if (!files) return {{Severity::kBlock, "root", files.error().text, ""}};
  Guest guest(*files, options);
  apply_rules(guest);
  return std::move(guest.findings);
}

Result<std::vector<Finding>> edit_guest(const DirFd& root, const GuestOptions& options,
                                        const std::string& originals_dir, OnBlock on_block) {
  if (has_originals(originals_dir)) (void)TRY(undo_edits(root, originals_dir), "undo an interrupted edit");
  auto files = TRY(open_again(root));
  Guest guest(files, options);
  apply_rules(guest);
  if (worst(guest.findings) == Severity::kBlock && on_block == OnBlock::kRefuse) return std::move(guest.findings);
  TRY(files.commit(originals_dir));
  return std::move(guest.findings);
}

}  // namespace virtuserns::convert
