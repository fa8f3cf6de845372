#include "conf/store.h"

#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns {

namespace {

Result<void> check_name(const std::string& name) {
  if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos)
    return fail(VIR_ERR_INTERNAL_ERROR, quote(name) + " is no name for a file");
  return {};
}

}  // namespace

Result<Store::Loaded> Store::load() const {
  TRY(make_directories(directory_ + "/autostart", 0700));
  Loaded loaded;
  for (const auto& file : TRY(list_directory(directory_))) {
    if (file.front() == '.' || file == "autostart") continue;
    if (file.find(suffix_ + ".new.") != std::string::npos) {
      // What write_atomic left when it was killed before its rename: it was never acknowledged.
      ::unlink((directory_ + "/" + file).c_str());
      continue;
    }
    if (file.size() <= suffix_.size() || !file.ends_with(suffix_)) continue;  // a person's own backup, say
    const std::string name = file.substr(0, file.size() - suffix_.size());
    auto content = read_file(directory_ + "/" + file, kMaxStoredBytes);
    if (struct stat st{};
        content && ::lstat((directory_ + "/" + file).c_str(), &st) == 0 && st.st_uid != 0 && st.st_uid != ::geteuid())
      content = fail(VIR_ERR_INTERNAL_ERROR, "belongs to user " + std::to_string(st.st_uid));
    if (content && content->find('\0') != std::string::npos) content = fail(VIR_ERR_INTERNAL_ERROR, "holds a NUL");
    if (content && content->empty()) content = fail(VIR_ERR_INTERNAL_ERROR, "is empty");
    if (!content) {
      set_aside(name);
      loaded.problems.push_back(quote(directory_ + "/" + file) + " was set aside: " + content.error().text);
      continue;
    }
    struct stat st {};
    loaded.items.push_back({name, std::move(*content), ::lstat(mark(name).c_str(), &st) == 0});
  }
  drop_lone_marks();
  return loaded;
}

// A change that fails at its last fsync has been made already; who is told that it failed must find the old state, also
// after a restart. So the old text keeps a second name meanwhile: to put it back takes no room on a full disk. load()
// removes that name when a crash left it.
template <typename Change>
Result<void> Store::change(const std::string& name, Keep keep, Change&& change) const {
  TRY(check_name(name));
  const std::string kept = path(name) + ".new.kept";
  struct stat st {};
  ::unlink(kept.c_str());
  const bool is_kept = keep == Keep::kMoved ? ::rename(path(name).c_str(), kept.c_str()) == 0
                                            : ::link(path(name).c_str(), kept.c_str()) == 0;
  const bool is_new = !is_kept && errno == ENOENT;
  // link(2): a file system without links. Then there is nothing to put back.
  const bool has_no_links = keep == Keep::kLinked && (errno == EPERM || errno == EOPNOTSUPP);
  if (!is_kept && !is_new && !has_no_links) return sys_fail("keep " + quote(path(name)));
  const bool is_marked = ::lstat(mark(name).c_str(), &st) == 0;
  auto changed = change();
  if (!changed) {
    if (is_kept) ::rename(kept.c_str(), path(name).c_str());  // does nothing when both are the same file
    if (is_new) ::unlink(path(name).c_str());
    if (is_marked)
      (void)!::symlink(("../" + name + suffix_).c_str(), mark(name).c_str());
    else
      ::unlink(mark(name).c_str());
  }
  if (is_kept) ::unlink(kept.c_str());
  return changed;
}

Result<void> Store::save(const std::string& name, std::string_view content) const {
  if (content.size() > kMaxStoredBytes) return fail(VIR_ERR_INTERNAL_ERROR, quote(name) + ": too large to store");
  return change(name, Keep::kLinked, [&] { return write_atomic(path(name), content); });
}

Result<void> Store::remove(const std::string& name) const {
  // Moved: a full disk must not keep anybody from removing.
  return change(name, Keep::kMoved, [&]() -> Result<void> {
    // The text first: a mark without a text means nothing, a text without its mark would have lost something.
    TRY(sync_directory(directory_));
    return remove_durable(mark(name));
  });
}

Result<void> Store::set_autostart(const std::string& name, bool on) const {
  return change(name, Keep::kLinked, [&]() -> Result<void> {
    if (!on) return remove_durable(mark(name));
    TRY(make_directories(directory_ + "/autostart", 0700));
    if (::symlink(("../" + name + suffix_).c_str(), mark(name).c_str()) != 0 && errno != EEXIST)
      return sys_fail("create " + quote(mark(name)));
    return sync_directory(directory_ + "/autostart");
  });
}

// Of a removal that was cut short after the text: the next domain of that name must not start by itself.
void Store::drop_lone_marks() const {
  const auto marks = list_directory(directory_ + "/autostart");
  if (!marks) return;
  struct stat st {};
  for (const auto& file : *marks) {
    const std::string link = directory_ + "/autostart/" + file;
    if (!file.ends_with(suffix_) || ::lstat(link.c_str(), &st) != 0 || !S_ISLNK(st.st_mode)) continue;
    // One that was set aside may be repaired by hand.
    const auto is_gone = [&](const char* prefix) {
      return ::lstat((directory_ + prefix + file).c_str(), &st) != 0 && errno == ENOENT;
    };
    if (is_gone("/") && is_gone("/.broken-")) ::unlink(link.c_str());
  }
}

void Store::set_aside(const std::string& name) const {
  const std::string broken = directory_ + "/.broken-" + name + suffix_;
  if (::rename(path(name).c_str(), broken.c_str()) == 0) (void)sync_directory(directory_);
}

}  // namespace virtuserns
