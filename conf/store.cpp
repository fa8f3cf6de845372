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
  return loaded;
}

Result<void> Store::save(const std::string& name, std::string_view content) const {
  TRY(check_name(name));
  if (content.size() > kMaxStoredBytes) return fail(VIR_ERR_INTERNAL_ERROR, quote(name) + ": too large to store");
  return write_atomic(path(name), content);
}

Result<void> Store::remove(const std::string& name) const {
  TRY(check_name(name));
  // The text first: a mark without a text means nothing, a text without its mark would have lost something.
  TRY(remove_durable(path(name)));
  return remove_durable(mark(name));
}

Result<void> Store::set_autostart(const std::string& name, bool on) const {
  TRY(check_name(name));
  if (!on) return remove_durable(mark(name));
  TRY(make_directories(directory_ + "/autostart", 0700));
  if (::symlink(("../" + name + suffix_).c_str(), mark(name).c_str()) != 0 && errno != EEXIST)
    return sys_fail("create " + quote(mark(name)));
  return sync_directory(directory_ + "/autostart");
}

void Store::set_aside(const std::string& name) const {
  const std::string broken = directory_ + "/.broken-" + name + suffix_;
  if (::rename(path(name).c_str(), broken.c_str()) == 0) (void)sync_directory(directory_);
}

}  // namespace virtuserns
