// The bases of instances: each image, unpacked once, as a directory that is only read.
//
//   FOLDER/bases/KEY/        what virt-userns-image(1) made of an image; a tree with set-user-id programs, so root's alone
//   FOLDER/facts/KEY         how large it is; its time is when it was used last. A base without it is none: it was not finished
//   FOLDER/holds/KEY/UUID    an instance that needs it
//   FOLDER/locks/KEY         held while a base is made or removed, also by the program that makes it when we are gone
//
// Any number of threads and processes may use one folder at once. What a crash leaves is a base that is there or not, and holds of
// instances that the caller knows of. Nothing here looks into a tree.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/uuid.h"
#include "driver/compute/room.h"

namespace virtuserns::compute {

// 1 to 200 of letters, digits, '.', '_' and '-', the first a letter or digit: "sha512-...-qcow2".
[[nodiscard]] Result<void> check_image_key(std::string_view key);

struct ImageSource {
  std::string file;        // absolute
  std::string format;      // as the catalogue says: "qcow2", "root-tar"; empty: by its content
  bool is_fitted = false;  // changed for a container; then the key has to be another
  // That it may have unpacked; 0: what there is room for; none: as the store says.
  std::optional<std::uint64_t> limit_bytes = {};
};

struct StoreOptions {
  std::string folder;                                  // absolute; made if need be
  std::string program = "/usr/bin/virt-userns-image";  // absolute
  std::uint64_t limit_bytes = 0;  // of a base whose image has no limit of its own; 0: what there is room for
  unsigned reserve_percent = 5;   // of the file system, that making a base leaves free
  bool is_whole = false;          // bases have the disk of an image (BASE/disk), and not its files
  std::chrono::seconds timeout = std::chrono::hours(1);  // of making one
  // One that was used since is not removed to make room: it may have been fetched for an instance that is on its way.
  std::chrono::seconds keep_unused_for = std::chrono::minutes(10);
};

struct Base {
  std::string key, path;
  std::uint64_t bytes = 0;
  std::time_t used_at = 0;
  std::vector<Uuid> holders;
};

struct SweepLimits {
  std::optional<std::uint64_t> max_bytes;       // of all bases together
  std::optional<std::chrono::seconds> max_age;  // since the last use
  std::chrono::seconds keep_unused_for{0};      // one that was used since is never removed
};

class ImageStore {
 public:
  // Removes what killed runs have left. An error: the folder is not ours alone.
  [[nodiscard]] static Result<ImageStore> open(StoreOptions options);

  // The path of the base, if there is one. A use of it. kImageTooLarge: it is larger than that; 0: however large it is.
  [[nodiscard]] Result<std::optional<std::string>> find(const std::string& key, std::uint64_t limit_bytes = 0) const;
  // The path of the base, which is made if it is not there: once, however many ask; the others wait. A use of it. The caller holds
  // it already, or a sweep may remove it at once. kImageTooLarge: it has more than its limit, be it there or not. ENOSPC: there is no
  // room for it, and nothing more that could be removed to make some.
  [[nodiscard]] Result<std::string> get(const std::string& key, const ImageSource& source) const;
  // Durable. Holding what is not there (yet), or twice, is no error; neither is releasing what is not held.
  [[nodiscard]] Result<void> hold(const std::string& key, const Uuid& instance) const;
  [[nodiscard]] Result<void> release(const std::string& key, const Uuid& instance) const;
  [[nodiscard]] Result<std::vector<Uuid>> holders(const std::string& key) const;

  [[nodiscard]] Result<std::vector<Base>> list() const;  // by key
  // Removes bases that nobody holds, the one that was not used for longest first, until the limits are kept. The keys that are gone.
  [[nodiscard]] Result<std::vector<std::string>> sweep(const SweepLimits& limits) const;
  // None is made any more (kUnavailable); those that are go on.
  void stop() const { room_->stop(); }

 private:
  explicit ImageStore(StoreOptions options)
      : options_(std::move(options)), room_(std::make_shared<Room>(options_.folder, options_.reserve_percent)) {}
  [[nodiscard]] std::string path(const char* kind, std::string_view key) const;
  [[nodiscard]] bool is_there(const std::string& key) const;
  [[nodiscard]] Result<void> make_base(const std::string& key, const ImageSource& source, const Fd& lock) const;
  [[nodiscard]] std::uint64_t limit_of(const ImageSource& source) const {
    return source.limit_bytes.value_or(options_.limit_bytes);
  }
  [[nodiscard]] std::uint64_t bytes(const std::string& key) const;
  [[nodiscard]] bool make_room(std::uint64_t wanted_bytes) const;
  [[nodiscard]] Result<void> take_away(const std::string& key) const;
  [[nodiscard]] Result<bool> remove_unheld(const Base& base) const;
  [[nodiscard]] Result<void> clean() const;

  StoreOptions options_;
  std::shared_ptr<Room> room_;  // of this process: it has no part in what another makes
};

}  // namespace virtuserns::compute
