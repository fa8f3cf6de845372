// What a conversion maps, changes, drops or cannot do: one finding each, and the worst of them as an exit code.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace virtuserns::convert {

enum class Severity {
  kNote,    // good to know; nothing is different
  kChange,  // done differently from now on; undone by rollback and back
  kLoss,    // something the VM did that the container will not do
  kBlock,   // the conversion is not done, or what it makes would not work
};

// Texts may hold bytes of the guest or of a stranger's XML: they are made printable where they are printed.
struct Finding {
  Severity severity = Severity::kNote;
  std::string object;  // "/etc/fstab", "service 'ntp'", "<interface 1>/<filterref>", "disk 'vda2'"
  std::string text;    // what it is: lower case, no full stop
  std::string remedy;  // what a person can do; may be empty
  std::string rule;    // of virt-userns-convert-rules(7), for scripts; empty where it is of no rule
  bool operator==(const Finding&) const = default;
};

// How long nobody answered, from the moment when the machine was asked to shut down.
struct Downtime {
  std::uint64_t machine_off_ms = 0, init_runs_ms = 0;
  std::uint16_t port = 0;                        // that was waited for; 0: none
  std::optional<std::uint64_t> port_answers_ms;  // nothing: it did not in time
};

// All that is to say of one virtual machine.
struct Report {
  std::string domain;  // its name, or that of its disk
  std::vector<Finding> findings;
  std::string done = "ready";                       // the verdict where nothing is lost: "rolled back"
  std::optional<Downtime> downtime = std::nullopt;  // of a machine that ran
};

[[nodiscard]] const char* word_of(Severity severity);  // "note", "change", "loss", "block"
[[nodiscard]] Severity worst(std::span<const Finding> findings);
// Of `plan`: 0 notes and changes only, 2 something is lost, 3 blocked. (1 is an error: no answer at all.)
[[nodiscard]] int exit_code(std::span<const Report> reports);

}  // namespace virtuserns::convert
