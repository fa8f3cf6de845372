// The instances of this host: what a compute driver does with them, in terms of the hypervisor, its disks and the images. One of
// its functions is one method of docs/compute-api.md, which says what each does; files are by concern (spawn.cpp, power.cpp, ...).
//
// Thread-safe: what concerns one instance is done one after another. Each function may be repeated after an error or a death of the adapter,
// and the next one about an instance finds what the last one left: the journal (record.h) is written first.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "driver/compute/consoles.h"
#include "driver/compute/hypervisor.h"
#include "driver/compute/guests.h"
#include "driver/compute/record.h"
#include "driver/compute/settings.h"
#include "driver/compute/thaws.h"
#include "driver/compute/transfer.h"

namespace virtuserns::compute {

struct SpawnRequest {
  InstanceSpec spec;
  std::optional<ImageRef> image;
  std::vector<Vif> network;
  std::vector<VolumeRef> volumes;
  std::vector<FileToWrite> files, config_drive;
  std::string password;  // of root; empty: none is set
  bool power = true;
  std::optional<std::uint64_t> image_limit_bytes = {};  // 0: however large it is; none: as its flavor says
};

struct RescueRequest {
  std::string uuid;
  ImageRef image;
  std::vector<Vif> network;
  std::vector<VolumeRef> volumes;
  std::vector<FileToWrite> files, config_drive;
  std::string password;
};

struct Wiring {  // what a start may bring anew
  std::vector<Vif> network;
  std::vector<VolumeRef> volumes;
};

// What the source of a migration gives to whoever is to fetch the instance; a secret between both.
struct Ticket {
  std::string host, address, token;
  std::optional<ImageRef> image;
  std::optional<IdRange> ids;
};

struct ArrivalRequest {
  InstanceSpec spec;
  Ticket ticket;
  std::vector<Vif> network;
  std::vector<VolumeRef> volumes;
  bool power = true;
};

struct InstanceFacts {
  std::string state;  // of docs/compute-api.md
  DomainFacts domain;
  std::optional<IdRange> ids;
};

struct ListedInstance {
  std::string uuid, name, state;
};

struct NicCounters {
  std::string mac;
  std::optional<virDomainInterfaceStatsStruct> counters;  // none while it is off
};
struct Diagnostics {
  InstanceFacts facts;
  std::vector<NicCounters> nics;
  std::vector<DiskCounters> disks;
  bool has_config_drive = false;
};

class Compute {
 public:
  Compute(Settings settings, Hypervisor& hypervisor, const Guests& guests, Bases& images);

  // Reads the journals and takes away what a spawn left that died. Before anything else; errors name the instance and are logged, so that
  // one damaged journal does not keep the others from being served.
  [[nodiscard]] Result<void> load();

  [[nodiscard]] Result<std::vector<ListedInstance>> list();
  // Those of which there is something here, though list() has not got them: they have moved away and may come back, or their domain was
  // undefined by somebody else. A scheduler that knows one to be deleted has it destroyed.
  [[nodiscard]] Result<std::vector<std::string>> remains();
  [[nodiscard]] Result<InstanceFacts> info(const std::string& uuid);
  [[nodiscard]] bool knows(const std::string& uuid);

  // Its ids, if it has some of its own.
  [[nodiscard]] Result<std::optional<IdRange>> spawn(const SpawnRequest& request);
  // `reverts`: it is gone back from a resize on this host, so what was before it stays; none: if there was one.
  [[nodiscard]] Result<void> destroy(const std::string& uuid, bool has_disks_removed, std::optional<bool> reverts);
  // As destroy() with its disks, but its ids are nobody else's until it is spawned again, or this program starts anew.
  [[nodiscard]] Result<void> destroy_for_rebuild(const std::string& uuid);

  [[nodiscard]] Result<void> power_off(const std::string& uuid, std::chrono::seconds timeout);
  [[nodiscard]] Result<void> power_on(const std::string& uuid, Wiring wiring);
  [[nodiscard]] Result<void> reboot_soft(const std::string& uuid, Wiring wiring);
  [[nodiscard]] Result<void> reboot_hard(const std::string& uuid, Wiring wiring);
  [[nodiscard]] Result<void> pause(const std::string& uuid);
  [[nodiscard]] Result<void> unpause(const std::string& uuid);
  [[nodiscard]] Result<void> suspend(const std::string& uuid);
  [[nodiscard]] Result<void> resume(const std::string& uuid, Wiring wiring);

  [[nodiscard]] Result<void> rescue(const RescueRequest& request);
  [[nodiscard]] Result<void> unrescue(const std::string& uuid);
  // Writes to `output`, which is the caller's, and empty after an error. Fails at once when the instance is destroyed meanwhile.
  [[nodiscard]] Result<Packed> snapshot(const std::string& uuid, const Fd& output);
  [[nodiscard]] Result<void> resize(const std::string& uuid, const Flavor& flavor);

  // On the source, with revert and confirm; migrate_in on the host that it goes to, which may be this one (a resize).
  [[nodiscard]] Result<Ticket> migrate_out(const std::string& uuid, std::chrono::seconds timeout);
  [[nodiscard]] Result<std::optional<IdRange>> migrate_in(const ArrivalRequest& request);
  [[nodiscard]] Result<void> migrate_confirm(const std::string& uuid);
  [[nodiscard]] Result<void> migrate_revert(const std::string& uuid, Wiring wiring, bool power);
  // What the holder of a ticket fetches; no descriptor: it has no disk of its own.
  [[nodiscard]] Result<std::pair<Fd, Luggage>> open_moved(const std::string& uuid, const std::string& token);

  [[nodiscard]] Result<std::string> console_output(const std::string& uuid, std::size_t bytes);
  [[nodiscard]] Result<std::uint16_t> serial_console(const std::string& uuid);
  [[nodiscard]] Result<Diagnostics> diagnostics(const std::string& uuid);
  [[nodiscard]] Result<void> set_password(const std::string& uuid, const std::string& user,
                                          const std::string& password);
  // A new file in Settings::dumps, whose path it is; the oldest there go. Fails at once when the instance is destroyed meanwhile.
  [[nodiscard]] Result<std::string> crash_dump(const std::string& uuid);
  // For Settings::quiesce_limit_s at most, and no longer than this lives: the next one thaws what it finds.
  [[nodiscard]] Result<void> quiesce(const std::string& uuid);
  [[nodiscard]] Result<void> unquiesce(const std::string& uuid);
  [[nodiscard]] Result<void> extend_volume(const std::string& uuid, const VolumeRef& volume);
  [[nodiscard]] Result<void> attach_interface(const std::string& uuid, const Vif& vif);
  [[nodiscard]] Result<void> detach_interface(const std::string& uuid, const Vif& vif);
  [[nodiscard]] Result<void> attach_volume(const std::string& uuid, const VolumeRef& volume);
  [[nodiscard]] Result<void> detach_volume(const std::string& uuid, const VolumeRef& volume);
  [[nodiscard]] Result<void> swap_volume(const std::string& uuid, const VolumeRef& volume, const VolumeRef& next);

  [[nodiscard]] const Settings& settings() const { return settings_; }
  [[nodiscard]] Hypervisor& hypervisor() { return hypervisor_; }
  [[nodiscard]] const Guests& guests() const { return guests_; }
  [[nodiscard]] Bases& images() { return images_; }
  // Root of its disks, MB of memory and vcpus of all instances.
  struct Claimed {
    std::uint64_t vcpus = 0, memory_mb = 0, disk_gb = 0, instances = 0;
  };
  [[nodiscard]] Claimed claimed();

 private:
  struct Slot {
    std::mutex job;                // held for as long as something is done with the instance
    std::optional<Record> record;  // none: there is no such instance (any more); by `job` and mutex_
  };
  // The instance, for as long as this lives.
  class Held {
   public:
    Held(Compute& owner, std::shared_ptr<Slot> slot, std::unique_lock<std::mutex> job, std::string folder)
        : owner_(owner),
          slot_(std::move(slot)),
          lock_(std::move(job)),
          folder_(std::move(folder)),
          disk_(owner.guests_.disk(folder_)) {}
    Held(Held&&) = default;
    ~Held();  // of what turned out to be no instance, nothing is kept
    [[nodiscard]] std::optional<Record>& record() { return slot_->record; }
    [[nodiscard]] const std::string& folder() const { return folder_; }
    [[nodiscard]] const InstanceDisk& disk() const { return *disk_; }
    // With its record; there is one.
    [[nodiscard]] Instance instance() const { return {*slot_->record, folder_}; }

   private:
    Compute& owner_;
    std::shared_ptr<Slot> slot_;
    std::unique_lock<std::mutex> lock_;
    std::string folder_;
    std::unique_ptr<InstanceDisk> disk_;
  };

  [[nodiscard]] Held hold(const std::string& uuid);
  // As hold(), of what is to be destroyed: a dump that holds it ends with its domain, and a snapshot at once; none begins any more.
  [[nodiscard]] Held hold_to_destroy(const std::string& uuid);
  // Without waiting; none: something is done with it.
  [[nodiscard]] std::optional<Held> hold_if_free(const std::string& uuid);
  [[nodiscard]] Result<void> check_not_doomed_locked(const std::string& uuid) const;
  // VIR_ERR_NO_DOMAIN without a complete record, and of one that has moved away.
  [[nodiscard]] Result<Held> hold_ready(const std::string& uuid);
  // As hold_ready(), of what is to run here: one that had moved away is taken back, because the scheduler has decided so, though the
  // request that should have said it was lost.
  [[nodiscard]] Result<Held> hold_to_start(const std::string& uuid);
  [[nodiscard]] std::optional<Record> peek(const std::string& uuid);
  [[nodiscard]] std::string folder_of(const std::string& uuid) const;

  [[nodiscard]] Result<void> save(Held& held, Record record);
  void remember(Held& held, Record record);  // without writing it
  // The definition as the record says, with its disk there.
  [[nodiscard]] Result<void> prepare(Held& held);
  [[nodiscard]] Result<void> start(Held& held);
  [[nodiscard]] Result<void> stop(Held& held, std::chrono::seconds timeout);
  // Of one that had moved away: it is the one that counts. migrate.cpp
  [[nodiscard]] Result<void> take_back(Held& held);
  // Of one that is off: it has its own root again, and the rescue's files are gone. rescue.cpp
  [[nodiscard]] Result<void> end_rescue(Held& held);
  [[nodiscard]] Result<void> end_suspension(Held& held);
  // Domain, disk, folder, hold on the image.
  [[nodiscard]] Result<void> remove(Held& held);
  [[nodiscard]] Result<void> thaw(Held& held);
  // Without waiting: one that something is done with is thawed afterwards.
  void thaw_overdue(const std::string& uuid);
  // What it is made of, and no more: the definition, which has its ids, stays for the one that is made next.
  [[nodiscard]] Result<void> empty(Held& held);
  [[nodiscard]] Result<void> run_on(Held& held);
  // VIR_ERR_INVALID_ARG: another instance of this host has one of the volumes.
  [[nodiscard]] Result<void> check_sharing(const InstanceSpec& spec, const std::vector<VolumeRef>& volumes);
  // Record::arriving of `record`, which is the instance's, and the end of that when an attach has died.
  [[nodiscard]] Result<void> announce(Held& held, Record& record, const VolumeRef& volume);
  [[nodiscard]] Result<void> drop_arriving(Held& held);
  [[nodiscard]] Result<void> take_wiring(Held& held, Wiring wiring);
  [[nodiscard]] Result<void> make_disk(const Held& held);
  [[nodiscard]] Result<std::optional<IdRange>> note_ids(Held& held);
  [[nodiscard]] Result<void> fetch(Held& held, const Ticket& ticket);
  [[nodiscard]] Result<void> resize_here(Held& held, const ArrivalRequest& request);
  [[nodiscard]] Result<void> undo_resize(Held& held);
  [[nodiscard]] Result<void> forget_before_resize(Held& held);  // from here on there is no way back
  [[nodiscard]] static Result<void> remove_kept(const Held& held);
  [[nodiscard]] std::uint64_t disk_bytes(const Flavor& flavor) const;
  // That the image of such an instance may have; 0: any number.
  [[nodiscard]] std::uint64_t image_bytes(const Flavor& flavor) const;

  static constexpr const char* kKeptDisk = "/disk.before.img";  // of an instance that was resized on this host

  Settings settings_;
  Hypervisor& hypervisor_;
  const Guests& guests_;
  Bases& images_;
  Consoles consoles_;
  std::mutex dumps_;    // one dump is made at a time; before an instance is held, since others may hold up its dump
  std::string dumped_;  // by mutex_: whose
  std::set<std::string> wanted_dumps_;       // by mutex_: of whom one is made or waited for
  std::multiset<std::string> doomed_;        // by mutex_: who is to be destroyed, as often as somebody waits for that
  std::map<std::string, const Fd*> packed_;  // by mutex_: of whom an image is made, and what ends that
  std::mutex mutex_;                         // of slots_, of who has one, and of records read without their job
  std::map<std::string, std::shared_ptr<Slot>> slots_;
  Thaws thaws_;  // the last: its thread uses the others
};

}  // namespace virtuserns::compute
