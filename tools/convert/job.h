// A conversion as a job on disk: what it is about to make is written down before it is made, so that whatever ends this
// process, the next run knows what to undo or to finish.
//
//   FOLDER/.NAME.lock        held while a command works on the job
//   FOLDER/NAME/state.json   written by a temporary file, fsync and rename
//   FOLDER/NAME/originals/   what the guest's edited files were (guest_files.h)
//   FOLDER/NAME/vda.qcow2    the disks of a container that runs in place: on top of the VM's, which are never written
//   FOLDER/NAME/root/        the tree of a container that was copied
//   FOLDER/NAME/root.img     its image
//
// All that a job makes is in its folder, but for the definition, which is known by its uuid, and overlays of a machine that runs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/guest_mount.h"
#include "tools/convert/image.h"

namespace virtuserns::convert {

enum class Mode { kInPlace, kTree, kImage };
enum class Phase { kConverting, kConverted, kCommitting, kCommitted, kRollingBack };

[[nodiscard]] const char* word_of(Mode mode);    // "in-place", "tree", "image"
[[nodiscard]] const char* word_of(Phase phase);  // "converting", ...

struct JobDisk {
  std::string target;        // "vda"
  std::vector<Image> chain;  // the VM's, as it was when the conversion began
  bool operator==(const JobDisk&) const = default;
};

// A machine that ran when the conversion began. Since then it writes to overlays of libvirt's, outside of the job's folder, as
// qemu has to reach them.
struct LiveDisk {
  std::string target;       // "vda"
  std::string overlay;      // made by libvirt, on top of what was the disk
  bool is_merging = false;  // on the way back: then a machine that does not use it has its data
  bool operator==(const LiveDisk&) const = default;
};
struct LiveMachine {
  std::string uri, uuid, name;
  std::vector<LiveDisk> disks;
  bool is_stopped = false;    // by us, or about to be: whoever undoes the job starts it again
  std::uint32_t limit_s = 0;  // it may still be on its way for so long
  bool operator==(const LiveMachine&) const = default;
};

struct JobState {
  Phase phase = Phase::kConverting;
  Mode mode = Mode::kInPlace;
  std::string uri;          // of the daemon that has the definition
  std::string domain_uuid;  // "": it is not defined yet
  std::vector<JobDisk> disks;
  std::vector<Placed> places;
  std::string source_xml;  // of the VM; "": it was a disk alone
  std::optional<LiveMachine> live;
  std::vector<std::string> backs;  // folders of machines that `back` has made, or was about to, on top of `disks`
  bool operator==(const JobState&) const = default;
};

[[nodiscard]] std::string format_state(const JobState& state);
[[nodiscard]] Result<JobState> parse_state(std::string_view text);

class Job {
 public:
  // Takes its lock. `name` is a domain's; VIR_ERR_NO_DOMAIN where there is no such job, VIR_ERR_RESOURCE_BUSY where
  // another command works on it.
  [[nodiscard]] static Result<Job> open(const std::string& folder, const std::string& name);
  // Makes the folder, which must not have a job. Its state is on the disk when this returns.
  [[nodiscard]] static Result<Job> create(const std::string& folder, const std::string& name, const JobState& state);
  [[nodiscard]] static bool exists(const std::string& folder, const std::string& name);
  // Of all jobs, whoever works on them.
  [[nodiscard]] static std::vector<std::string> list(const std::string& folder);
  [[nodiscard]] static Result<JobState> look(const std::string& folder, const std::string& name);

  [[nodiscard]] const JobState& state() const { return state_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::string path(const std::string& entry) const {
    return entry == "." ? path_ : path_ + "/" + entry;
  }
  // Durable when it returns.
  [[nodiscard]] Result<void> save(JobState state);
  // What is left is that of a job that was cut short, of which nothing is defined. Needs no room on the disk.
  [[nodiscard]] Result<void> forget();
  // All of the folder, state and lock last. What else has to be undone is undone before.
  [[nodiscard]] Result<void> remove();
  // All but what is named, lock and state: what a crash may have left.
  [[nodiscard]] Result<void> remove_but(const std::vector<std::string>& kept);

 private:
  std::string folder_, name_, path_;
  Fd lock_;
  JobState state_;
};

// Names that may become a folder: no slash, no dot in front, at most 200 bytes.
[[nodiscard]] Result<void> check_job_name(const std::string& name);

}  // namespace virtuserns::convert
