#include "driver/compute/images.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/image_program.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

constexpr const char *kBases = "bases", *kFacts = "facts", *kHolds = "holds", *kLocks = "locks";
constexpr std::size_t kMaxKey = 200, kMaxFacts = 64;
constexpr const char* kHoldsLock = ".holds";  // no key begins with a dot
// A file or a directory has a block: what is within its bytes is within this, unless it is made of empty files. And the program's own.
constexpr std::uint64_t kBytesOfEntry = 4096, kMostEntries = 4'000'000;

bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

// flock(2), so that it holds between threads too, and for a child that keeps the descriptor. False: somebody has it, and we did not
// want to wait.
enum class Wait { kNo, kYes };
Result<Fd> take_lock(const std::string& path, Wait wait) {
  for (;;) {
    Fd lock(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock) return sys_fail("open lock " + quote(path));
    while (::flock(lock.get(), LOCK_EX | (wait == Wait::kNo ? LOCK_NB : 0)) != 0) {
      if (errno == EINTR) continue;
      if (errno == EWOULDBLOCK) return fail(VIR_ERR_RESOURCE_BUSY, "lock " + quote(path) + " is held");
      return sys_fail("lock " + quote(path));
    }
    // It goes with its base: one that was removed while we waited for it is not one.
    struct stat ours {
    }, there{};
    if (::fstat(lock.get(), &ours) == 0 && ::lstat(path.c_str(), &there) == 0 && ours.st_ino == there.st_ino)
      return lock;
  }
}

bool is_missing(const Error& error) { return error.sys_errno == ENOENT; }

// {"bytes": 123}: of what the program prints, one number. It is ours, and bounded by run_image_program().
std::uint64_t bytes_of(std::string_view printed) {
  constexpr std::string_view kMark = "\"bytes\":";
  const auto at = printed.find(kMark);
  if (at == std::string_view::npos) return 0;
  const auto rest = trim(printed.substr(at + kMark.size()));
  return parse_number<std::uint64_t>(rest.substr(0, rest.find_first_not_of("0123456789"))).value_or(0);
}

// 0: as many as the program lets in.
std::uint64_t entries_of(std::uint64_t limit_bytes) {
  return limit_bytes == 0 ? 0 : std::clamp<std::uint64_t>(limit_bytes / kBytesOfEntry, 1, kMostEntries);
}

// What is to be done comes first: of a long one a user may see the beginning only (of Nova's 255 characters).
Error too_large(std::uint64_t limit_bytes, const std::string& why) {
  const auto what =
      limit_bytes == 0
          ? "the image has more entries than any may have: "
          : "the image does not fit into the " + std::to_string(limit_bytes >> 20) +
                " MiB that it may have: choose a flavor with a larger disk (for a disk of 0: image_limit_gb): ";
  return fail(kImageTooLarge, what + why);
}

Result<void> check_private(const std::string& folder) {
  struct stat st {};
  if (::lstat(folder.c_str(), &st) != 0) return sys_fail("look at " + quote(folder));
  if (S_ISDIR(st.st_mode) && st.st_uid == ::geteuid() && (st.st_mode & 077) == 0) return {};
  return fail(
      VIR_ERR_OPERATION_DENIED,
      quote(folder) + " must be a directory of its own user alone, mode 0700: programs in it are set-user-id");
}

}  // namespace

Result<void> check_image_key(std::string_view key) {
  const bool is_good = !key.empty() && key.size() <= kMaxKey && is_letter_or_digit(key.front()) &&
                       std::all_of(key.begin(), key.end(),
                                   [](char c) { return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-'; });
  if (is_good) return {};
  return fail(VIR_ERR_INVALID_ARG,
              quote(key) + " is no key of an image: 1 to 200 of letters, digits, '.', '_' and '-'");
}

std::string ImageStore::path(const char* kind, std::string_view key) const {
  return options_.folder + "/" + kind + (key.empty() ? "" : "/") + std::string(key);
}

Result<ImageStore> ImageStore::open(StoreOptions options) {
  if (options.folder.empty() || options.folder.front() != '/')
    return fail(VIR_ERR_INVALID_ARG, "the folder of images needs an absolute path");
  TRY(make_directories(options.folder, 0700));
  TRY(check_private(options.folder));
  ImageStore store(std::move(options));
  for (const char* kind : {kBases, kFacts, kHolds, kLocks}) TRY(make_directories(store.path(kind, ""), 0700));
  TRY(sync_directory(store.options_.folder));
  TRY(store.clean());
  return store;
}

// Bases without facts, and what the program itself was at when it was killed.
Result<void> ImageStore::clean() const {
  bool is_anything_left = false;
  for (const auto& name : TRY(list_directory(path(kBases, "")))) {
    is_anything_left |= name.front() == '.';
    if (!check_image_key(name) || is_there(name)) continue;
    const auto lock = take_lock(path(kLocks, name), Wait::kNo);
    if (!lock || is_there(name)) continue;  // it is being made
    TRY(take_away(name));
    is_anything_left = true;
  }
  // Facts without a base, and those that somebody was about to write.
  for (const auto& name : TRY(list_directory(path(kFacts, "")))) {
    const auto key = name.substr(0, name.find(".new."));
    if (is_there(name)) continue;
    const auto lock = take_lock(path(kLocks, key), Wait::kNo);
    if (lock && !is_there(name)) TRY(remove_durable(path(kFacts, name)));
  }
  if (!is_anything_left) return {};
  (void)TRY(run_image_program({options_.program, "clean", path(kBases, "")}, nullptr, options_.timeout),
            "remove what is left of images");
  return {};
}

bool ImageStore::is_there(const std::string& key) const {
  struct stat st {};
  return ::lstat(path(kFacts, key).c_str(), &st) == 0 && ::lstat(path(kBases, key).c_str(), &st) == 0;
}

// No base any more, by one rename to a name that `clean` of the program removes. Its lock is ours.
Result<void> ImageStore::take_away(const std::string& key) const {
  TRY(remove_durable(path(kFacts, key)));
  const auto doomed = path(kBases, "." + key + ".remove");
  if (::rename(path(kBases, key).c_str(), doomed.c_str()) == 0 || errno == ENOENT) return {};
  if (errno != ENOTEMPTY && errno != EEXIST) return sys_fail("remove base " + quote(key));
  // Of a run that was killed.
  (void)TRY(run_image_program({options_.program, "clean", path(kBases, "")}, nullptr, options_.timeout));
  if (::rename(path(kBases, key).c_str(), doomed.c_str()) != 0) return sys_fail("remove base " + quote(key));
  return {};
}

Result<void> ImageStore::make_base(const std::string& key, const ImageSource& source, const Fd& lock) const {
  // One that nobody has been told of: the facts come last.
  TRY(take_away(key));
  std::vector<std::string> argv{options_.program, "unpack", "--json", "--quiet"};
  const auto add = [&](const char* option, const std::string& value) { argv.insert(argv.end(), {option, value}); };
  if (!source.format.empty()) add("--format", source.format);
  if (const auto limit = limit_of(source); limit != 0) {
    add("--limit", std::to_string(limit));
    add("--entries", std::to_string(entries_of(limit)));
  }
  add("--reserve", std::to_string(options_.reserve_percent));
  if (source.is_fitted) argv.emplace_back("--fit");
  if (options_.is_whole) argv.emplace_back("--whole");
  argv.insert(argv.end(), {"--", source.file, path(kBases, key)});
  const auto printed = TRY(run_image_program(std::move(argv), &lock, options_.timeout));
  return write_atomic(path(kFacts, key), std::to_string(bytes_of(printed)) + "\n");
}

// Of those that nobody needs, the longest unused first, as much as a base may have at most, or all. Whether something went.
bool ImageStore::make_room(std::uint64_t wanted_bytes) const {
  const auto bases = list();
  std::uint64_t total = 0;
  if (bases)
    for (const auto& base : *bases) total += base.bytes;
  SweepLimits limits;
  limits.max_bytes = wanted_bytes != 0 && wanted_bytes < total ? total - wanted_bytes : 0;
  limits.keep_unused_for = options_.keep_unused_for;
  const auto gone = sweep(limits);
  if (!gone) log_warning("compute", "no room can be made for an image: " + gone.error().text);
  if (gone && !gone->empty())
    log_info("compute",
             "to make room for an image " + std::to_string(gone->size()) + " that nobody needs were removed");
  return gone && !gone->empty();
}

std::uint64_t ImageStore::bytes(const std::string& key) const {
  const auto text = read_file(path(kFacts, key), kMaxFacts);
  return text ? parse_number<std::uint64_t>(trim(*text)).value_or(0) : 0;
}

Result<std::optional<std::string>> ImageStore::find(const std::string& key, std::uint64_t limit_bytes) const {
  TRY(check_image_key(key));
  if (!is_there(key)) return std::optional<std::string>();
  if (const auto size = bytes(key); limit_bytes != 0 && size > limit_bytes)
    return too_large(limit_bytes, "base " + quote(key) + " has " + std::to_string(size) + " bytes");
  (void)::utimensat(AT_FDCWD, path(kFacts, key).c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
  return std::optional(path(kBases, key));
}

Result<std::string> ImageStore::get(const std::string& key, const ImageSource& source) const {
  TRY(check_image_key(key));
  if (source.file.empty() || source.file.front() != '/')
    return fail(VIR_ERR_INVALID_ARG, "the file of an image needs an absolute path");
  if (!is_there(key)) {
    const auto lock = TRY(take_lock(path(kLocks, key), Wait::kYes));
    if (!is_there(key)) {
      const Room::Turn turn(*room_, {limit_of(source), entries_of(limit_of(source))});
      if (room_->is_ending())
        return fail(kUnavailable, "make base " + quote(key) + ": this program is about to end; ask again");
      auto made = make_base(key, source, lock);
      while (!made && made.error().sys_errno == ENOSPC && make_room(limit_of(source)))
        made = make_base(key, source, lock);
      if (!made) {
        (void)::unlink(path(kLocks, key).c_str());
        auto error = std::move(made).error().with_context("make base " + quote(key));
        return error.code == kImageTooLarge ? too_large(limit_of(source), error.text) : error;
      }
    }
  }
  // One that nobody holds may have been swept since.
  (void)TRY(find(key, limit_of(source)));
  return path(kBases, key);
}

Result<void> ImageStore::hold(const std::string& key, const Uuid& instance) const {
  TRY(check_image_key(key));
  const auto lock = TRY(take_lock(path(kLocks, kHoldsLock), Wait::kYes));
  const auto folder = path(kHolds, key);
  TRY(make_directories(folder, 0700));
  // Nothing is in it: it needs no more than its name.
  const auto name = folder + "/" + format_uuid(instance);
  const Fd file(::open(name.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return sys_fail("create " + quote(name));
  return sync_directory(folder);
}

Result<void> ImageStore::release(const std::string& key, const Uuid& instance) const {
  TRY(check_image_key(key));
  const auto lock = TRY(take_lock(path(kLocks, kHoldsLock), Wait::kYes));
  const auto folder = path(kHolds, key);
  auto removed = remove_durable(folder + "/" + format_uuid(instance));
  if (!removed && !is_missing(removed.error())) return removed;
  (void)::rmdir(folder.c_str());  // if it was the last one
  return {};
}

Result<std::vector<Uuid>> ImageStore::holders(const std::string& key) const {
  TRY(check_image_key(key));
  std::vector<Uuid> all;
  const auto names = list_directory(path(kHolds, key));
  if (!names && !is_missing(names.error())) return names.error();
  if (names)
    for (const auto& name : *names)
      if (const auto uuid = parse_uuid(name)) all.push_back(*uuid);
  return all;
}

Result<std::vector<Base>> ImageStore::list() const {
  std::vector<Base> all;
  for (const auto& key : TRY(list_directory(path(kFacts, "")))) {
    struct stat st {};
    if (!check_image_key(key) || !is_there(key) || ::lstat(path(kFacts, key).c_str(), &st) != 0) continue;
    Base base{key, path(kBases, key), 0, st.st_mtime, {}};
    base.holders = TRY(holders(key));
    base.bytes = bytes(key);
    all.push_back(std::move(base));
  }
  return all;
}

// Not while it is made, nor while somebody begins to hold it, nor after it was used since `base` was looked at.
Result<bool> ImageStore::remove_unheld(const Base& base) const {
  const auto& key = base.key;
  const auto lock = take_lock(path(kLocks, key), Wait::kNo);
  if (!lock) return lock.error().code == VIR_ERR_RESOURCE_BUSY ? Result<bool>(false) : Result<bool>(lock.error());
  const auto no_new_holds = TRY(take_lock(path(kLocks, kHoldsLock), Wait::kYes));
  if (!TRY(holders(key)).empty()) return false;
  struct stat facts {};
  if (::lstat(path(kFacts, key).c_str(), &facts) == 0 && facts.st_mtime != base.used_at) return false;
  TRY(take_away(key));
  (void)::unlink(path(kLocks, key).c_str());
  return true;
}

Result<std::vector<std::string>> ImageStore::sweep(const SweepLimits& limits) const {
  auto bases = TRY(list());
  std::uint64_t bytes = 0;
  for (const auto& base : bases) bytes += base.bytes;
  const auto now = std::time(nullptr);
  std::erase_if(bases, [&](const auto& base) {
    return !base.holders.empty() || now - base.used_at < limits.keep_unused_for.count();
  });
  std::sort(bases.begin(), bases.end(), [](const auto& a, const auto& b) { return a.used_at < b.used_at; });
  std::vector<std::string> gone;
  for (const auto& base : bases) {
    const bool is_old = limits.max_age && now - base.used_at > limits.max_age->count();
    const bool is_too_much = limits.max_bytes && bytes > *limits.max_bytes;
    if (!is_old && !is_too_much) continue;
    if (!TRY(remove_unheld(base), "remove base " + quote(base.key))) continue;
    bytes -= base.bytes;
    gone.push_back(base.key);
  }
  if (!gone.empty()) TRY(clean());
  return gone;
}

}  // namespace virtuserns::compute
