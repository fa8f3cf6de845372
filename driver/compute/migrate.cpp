// Instances move: to another host, which fetches them, or to another flavor of this one.
//
// The source keeps what it has until it is told that the move is good (confirm) or not (revert). On one host the disk as it was is
// beside the new one until then.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/compute/compute.h"
#include "driver/compute/transfer.h"
#include "driver/kernel/device.h"
#include "driver/kernel/program.h"

namespace virtuserns::compute {
namespace {

constexpr std::size_t kMaxDrive = 8 * 1024 * 1024;

Result<std::string> make_token() {
  unsigned char random[32];
  if (::getrandom(random, sizeof random, 0) != sizeof random) return sys_fail("get random bytes");
  std::string token;
  for (const auto byte : random) {
    const char digits[] = "0123456789abcdef";
    (token += digits[byte >> 4]) += digits[byte & 15];
  }
  return token;
}

Result<std::vector<FileToWrite>> read_config_drive(const std::string& folder) {
  std::vector<FileToWrite> files;
  std::size_t total = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, error)) {
    if (!entry.is_regular_file(error)) continue;
    auto content = TRY(read_file(entry.path().string(), kMaxFileContent));
    if ((total += content.size()) > kMaxDrive)
      return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the config drive of the instance is too large to go with it");
    files.push_back({entry.path().string().substr(folder.size() + 1), std::move(content), 0444});
  }
  if (error) return sys_fail("read the config drive", error.value());
  return files;
}

// "ssh {address} ...": words of the configuration, with what the ticket says in them. No shell has a part in it.
Result<std::vector<std::string>> fetch_words(const std::string& command, const Ticket& ticket,
                                             const std::string& uuid) {
  const std::pair<std::string_view, const std::string&> values[] = {
      {"{address}", ticket.address}, {"{host}", ticket.host}, {"{uuid}", uuid}, {"{token}", ticket.token}};
  std::vector<std::string> words;
  for (const auto part : split_blanks(command)) {
    std::string word(part);
    for (const auto& [name, value] : values)
      for (auto at = word.find(name); at != std::string::npos; at = word.find(name, at + value.size()))
        word.replace(at, name.size(), value);
    words.push_back(std::move(word));
  }
  if (words.empty())
    return fail(VIR_ERR_CONF_SYNTAX, "migration_command is empty: instances of other hosts cannot be fetched");
  return words;
}

Result<std::uint64_t> size_of(const Fd& file) {
  struct stat found {};
  if (::fstat(file.get(), &found) != 0) return sys_fail("look at the disk");
  return static_cast<std::uint64_t>(found.st_size);
}

}  // namespace

Result<Ticket> Compute::migrate_out(const std::string& uuid, std::chrono::seconds timeout) {
  auto held = hold(uuid);
  if (!held.record() || held.record()->phase == Phase::kCreating)
    return fail(VIR_ERR_NO_DOMAIN, "there is no instance " + uuid + " here");
  auto record = *held.record();
  if (record.rescue) return fail(VIR_ERR_OPERATION_INVALID, "the instance is being rescued: unrescue it first");
  if (record.phase == Phase::kReady) {
    if (record.before_resize) {
      // Its confirmation was lost, or the scheduler would not have it moved.
      log_info("compute", "instance " + uuid + " was resized and is to move: the resize is confirmed");
      TRY(forget_before_resize(held));
      record = *held.record();
    }
    TRY(stop(held, timeout));
    record.phase = Phase::kMoved;
    record.token = TRY(make_token());
    record.is_suspended = false;
    TRY(save(held, record));
  }
  return Ticket{settings_.host, settings_.migration_address, record.token, record.image, record.spec.ids};
}

Result<std::pair<Fd, Luggage>> Compute::open_moved(const std::string& uuid, const std::string& token) {
  auto held = hold(uuid);
  if (!held.record() || held.record()->phase != Phase::kMoved || held.record()->token != token || token.empty())
    return fail(VIR_ERR_NO_DOMAIN, "no instance " + uuid + " waits here to be fetched with that token");
  Luggage luggage;
  if (held.record()->has_config_drive) luggage.config_drive = TRY(read_config_drive(held.folder() + "/config-2"));
  Fd disk;
  if (held.disk().exists()) {
    disk = Fd(::open(held.disk().image().c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!disk) return sys_fail("open the disk of the instance");
    // Not while a copy of its mount still writes; and nobody mounts it while it is sent.
    TRY(kernel::lock_image(disk, kernel::Access::kReadOnly));
    luggage.disk_bytes = TRY(size_of(disk));
  }
  return std::pair(std::move(disk), std::move(luggage));
}

// The same host: the disk as it was stays beside the one that goes on.
Result<void> Compute::resize_here(Held& held, const ArrivalRequest& request) {
  auto record = *held.record();
  const auto& disk = held.disk();
  if (!record.before_resize) {
    const auto kept = held.folder() + kKeptDisk;
    if (disk.exists()) {
      TRY(disk.unmount());
      TRY(disk.copy_to(kept + ".new"), "keep the disk as it is");
      if (::rename((kept + ".new").c_str(), kept.c_str()) != 0) return sys_fail("keep the disk as it is");
    }
    record.before_resize = record.spec;
    record.spec = request.spec;
    record.spec.ids = record.before_resize->ids;
    record.network = request.network;
    record.volumes = request.volumes;
    record.phase = Phase::kReady;
    record.token.clear();
    TRY(save(held, record));
  } else if (record.spec.flavor != request.spec.flavor) {
    return fail(VIR_ERR_OPERATION_INVALID,
                "the instance was resized already, to another flavor: confirm or revert that first");
  }
  // From here on what an attempt that died has not done is done by the next.
  // A disk of the default size may be larger than one that a flavor names: it stays as large, as on another host.
  if (disk.exists()) TRY(disk.grow(std::max(disk_bytes(record.spec.flavor), TRY(disk.size_bytes()))));
  TRY(prepare(held));
  return request.power ? start(held) : disk.unmount();
}

Result<void> Compute::fetch(Held& held, const Ticket& ticket) {
  const auto& uuid = held.record()->spec.uuid;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return sys_fail("make a socket");
  const Fd ours(pair[0]);
  Fd theirs(pair[1]);
  const Fd errors(::memfd_create("errors", MFD_CLOEXEC));
  if (!errors) return sys_fail("make a file for what it says");
  const auto words = TRY(fetch_words(settings_.migration_command, ticket, uuid));
  auto running = TRY(kernel::Running::start(words, theirs, errors, kernel::Network::kHost));
  theirs.reset();
  auto fetched = [&]() -> Result<void> {
    const auto luggage = TRY(receive_luggage(ours));
    if (luggage.disk_bytes > 0) {
      const auto path = held.disk().image();
      (void)::unlink(path.c_str());
      const Fd disk(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
      if (!disk) return sys_fail("make the disk of the instance");
      TRY(receive_disk(ours, disk, luggage.disk_bytes));
    }
    if (!luggage.config_drive.empty()) TRY(guests_.write_config_drive(held.instance(), luggage.config_drive));
    return {};
  }();
  if (fetched) return {};
  char said[1024];
  const auto size = ::pread(errors.get(), said, sizeof said, 0);
  auto error = std::move(fetched).error();
  error.text += size > 0 ? " (" + printable(trim({said, static_cast<std::size_t>(size)}), sizeof said) + ")"
                         : " (migration_command, " + quote(words.front()) + ", said nothing)";
  return std::move(error).with_context("fetch the instance from " + ticket.host);
}

Result<std::optional<IdRange>> Compute::migrate_in(const ArrivalRequest& request) {
  const auto& uuid = request.spec.uuid;
  TRY(check_sharing(request.spec, request.volumes));
  auto held = hold(uuid);
  if (request.ticket.host == settings_.host) {
    if (!held.record() || held.record()->phase == Phase::kCreating)
      return fail(VIR_ERR_NO_DOMAIN, "there is no instance " + uuid + " here");
    TRY(resize_here(held, request));
    return note_ids(held);
  }
  if (held.record() && held.record()->phase == Phase::kReady)
    return fail(VIR_ERR_DOM_EXIST, "there is an instance " + uuid + " already");
  if (held.record()) TRY(remove(held), "remove what an earlier attempt left");
  // It has it already, by a flavor that it had then.
  if (request.ticket.image) TRY(guests_.find_image(request.ticket.image->key, 0));

  Record record;
  record.spec = request.spec;
  record.spec.ids = request.ticket.ids;
  record.image = request.ticket.image;
  record.network = request.network;
  record.volumes = request.volumes;
  TRY(save(held, record));
  Undo undo;
  undo.add([&] {
    if (const auto removed = remove(held); !removed)
      log_error("compute", "instance " + uuid + " could not be taken in, nor be removed: " + removed.error().text);
  });
  if (record.image) TRY(guests_.hold_image(record.image->key, uuid));
  TRY(fetch(held, request.ticket));
  record.has_config_drive = ::access((held.folder() + "/config-2").c_str(), F_OK) == 0;
  TRY(save(held, record));
  if (held.disk().exists())
    TRY(held.disk().grow(std::max(disk_bytes(record.spec.flavor), TRY(held.disk().size_bytes()))));
  // Its ids go with it, unless somebody has them here: its files have the same numbers with any.
  if (const auto prepared = prepare(held); !prepared) {
    if (!record.spec.ids) return prepared.error();
    log_info("compute", "instance " + uuid + " gets other ids: " + prepared.error().text);
    record.spec.ids.reset();
    TRY(save(held, record));
    TRY(prepare(held));
  }
  if (request.power) TRY(start(held));
  if (!request.power) TRY(held.disk().unmount());
  const auto ids = TRY(note_ids(held));
  record = *held.record();
  record.phase = Phase::kReady;
  TRY(save(held, std::move(record)));
  undo.commit();
  return ids;
}

Result<void> Compute::migrate_confirm(const std::string& uuid) {
  auto held = hold(uuid);
  if (!held.record()) return {};
  if (held.record()->phase == Phase::kMoved) return remove(held);
  return forget_before_resize(held);
}

Result<void> Compute::forget_before_resize(Held& held) {
  auto record = *held.record();
  record.before_resize.reset();
  TRY(save(held, std::move(record)));
  return remove_kept(held);
}

Result<void> Compute::remove_kept(const Held& held) {
  for (const auto* suffix : {"", ".new"})
    if (::unlink((held.folder() + kKeptDisk + suffix).c_str()) != 0 && errno != ENOENT)
      return sys_fail("remove the disk as it was");
  return {};
}

// Of a resize on this host: what came of it goes, and what was before waits for migrate_revert.
Result<void> Compute::undo_resize(Held& held) {
  (void)thaw(held);
  auto record = *held.record();
  const auto& uuid = record.spec.uuid;
  TRY(hypervisor_.ensure_off(uuid));
  TRY(hypervisor_.ensure_undefined(uuid));
  TRY(held.disk().unmount());
  const auto kept = held.folder() + kKeptDisk;
  if (::rename(kept.c_str(), held.disk().image().c_str()) != 0 && errno != ENOENT)
    return sys_fail("take the disk as it was");
  const auto ids = record.spec.ids;
  record.spec = *record.before_resize;
  record.spec.ids = ids;
  record.before_resize.reset();
  record.phase = Phase::kMoved;
  record.is_suspended = false;
  return save(held, std::move(record));
}

Result<void> Compute::take_back(Held& held) {
  auto record = *held.record();
  record.phase = Phase::kReady;
  record.token.clear();
  TRY(save(held, std::move(record)));
  TRY(remove_kept(held));
  return prepare(held);
}

Result<void> Compute::migrate_revert(const std::string& uuid, Wiring wiring, bool power) {
  auto held = hold(uuid);
  if (!held.record() || held.record()->phase == Phase::kCreating)
    return fail(VIR_ERR_NO_DOMAIN, "there is no instance " + uuid + " here");
  if (held.record()->phase == Phase::kReady && held.record()->before_resize) TRY(undo_resize(held));
  auto record = *held.record();
  TRY(check_sharing(record.spec, wiring.volumes));
  record.network = std::move(wiring.network);
  record.volumes = std::move(wiring.volumes);
  TRY(save(held, std::move(record)));
  TRY(take_back(held));
  return power ? start(held) : held.disk().unmount();
}

}  // namespace virtuserns::compute
