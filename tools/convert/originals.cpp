#include "tools/convert/originals.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/convert/guest_paths.h"
#include "tools/convert/manifest.h"
#include "tools/convert/place.h"

namespace virtuserns::convert {

namespace {

constexpr const char* kManifestName = "manifest.json";
constexpr std::size_t kMaxManifestBytes = kMaxFileBytes;

std::string original_path(const std::string& directory, std::size_t n, const char* kind) {
  return directory + "/" + std::to_string(n) + "." + kind;
}

Result<struct stat> look_at(const DirFd& directory) {
  struct stat status {};
  if (::fstat(directory.get(), &status) != 0) return sys_fail("look at a directory");
  return status;
}

// Notes the times of the nearest directory above `path` that is there, and those below it that are not.
Result<std::optional<DirFd>> note_parent(const DirFd& root, const std::string& parent, std::set<std::string>& noted,
                                         Manifest& manifest) {
  auto directory = open_directory_in_root(root, parent);
  const bool is_there = static_cast<bool>(directory);
  if (!is_there && (directory.error().sys_errno != ENOENT || parent.empty())) return std::move(directory).error();
  if (!is_there) {
    const auto slash = parent.rfind('/');
    (void)TRY(note_parent(root, slash == std::string::npos ? "" : parent.substr(0, slash), noted, manifest));
    if (noted.insert(parent).second) manifest.made.push_back(parent);
    return std::optional<DirFd>();
  }
  if (noted.insert(parent).second) {
    const auto status = TRY(look_at(*directory));
    manifest.directories.push_back({parent, status.st_atim, status.st_mtim});
  }
  return std::optional<DirFd>(std::move(*directory));
}

Result<void> keep_originals(const DirFd& root, const std::vector<PlacedEdit>& edits, const std::string& originals_dir,
                            Manifest& manifest) {
  std::set<std::string> noted;
  for (const auto& edit : edits) {
    const auto [parent, name] = TRY(split_path(edit.path));
    const auto context = "keep " + quote(edit.path);
    const auto directory = TRY(note_parent(root, parent, noted, manifest), context);
    const auto place = directory ? TRY(read_place(*directory, name), context) : Place{};
    ManifestEntry entry{edit.path, place.state, PlaceKind::kNothing, {}};
    const auto n = manifest.entries.size();
    if (place.state.kind == PlaceKind::kFile)
      TRY(write_atomic_volatile(original_path(originals_dir, n, "original"), place.content), context);
    if (edit.kind == PlacedEdit::Kind::kFile) {
      entry.edited = PlaceKind::kFile;
      TRY(write_atomic_volatile(original_path(originals_dir, n, "edited"), edit.text), context);
    } else if (edit.kind == PlacedEdit::Kind::kLink) {
      entry.edited = PlaceKind::kLink, entry.edited_target = edit.text;
    }
    manifest.entries.push_back(std::move(entry));
  }
  return {};
}

// After all are written: the first sync then takes the others along, instead of one journal commit for each.
Result<void> sync_originals(const Manifest& manifest, const std::string& originals_dir) {
  for (std::size_t n = 0; n < manifest.entries.size(); ++n) {
    if (manifest.entries[n].original.kind != PlaceKind::kFile) continue;
    const auto path = original_path(originals_dir, n, "original");
    const Fd file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!file || ::fsync(file.get()) != 0) return sys_fail("sync " + quote(path));
  }
  return sync_directory(originals_dir);
}

// As its parent's owner: also where the tree of the guest is shifted already.
Result<void> make_directory(const DirFd& root, const std::string& path) {
  const auto [parent, name] = TRY(split_path(path));
  const auto directory = TRY(open_directory_in_root(root, parent));
  const auto status = TRY(look_at(directory));
  if (::mkdirat(directory.get(), name.c_str(), 0755) != 0)
    return errno == EEXIST ? Result<void>() : sys_fail("make directory " + quote(path));
  if (::fchownat(directory.get(), name.c_str(), status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) != 0)
    return sys_fail("set owner of " + quote(path));
  return {};
}

Result<void> apply_edit(const DirFd& root, const PlacedEdit& edit, const PlaceState& original) {
  const auto [parent, name] = TRY(split_path(edit.path));
  const auto directory = TRY(open_directory_in_root(root, parent));
  PlaceState state = original;
  if (original.kind != PlaceKind::kFile) state.mode = 0644, state.xattrs.clear();
  if (original.kind == PlaceKind::kNothing) {
    const auto status = TRY(look_at(directory));
    state.uid = status.st_uid, state.gid = status.st_gid;
  }
  state.kind = edit.kind == PlacedEdit::Kind::kFile   ? PlaceKind::kFile
               : edit.kind == PlacedEdit::Kind::kLink ? PlaceKind::kLink
                                                      : PlaceKind::kNothing;
  if (state.kind == PlaceKind::kLink) state.target = edit.text, state.xattrs.clear();
  return put_place(directory, name, state, edit.text, Keep::kOwner);
}

// What stands at the places of the entries, and the directories that hold them. Not the whole file system, which may be
// the host's and busy.
Result<void> sync_places(const DirFd& root, const Manifest& manifest) {
  std::set<std::string> parents;
  for (const auto& entry : manifest.entries) {
    const auto [parent, name] = TRY(split_path(entry.path));
    parents.insert(parent);
    const auto directory = open_directory_in_root(root, parent);
    struct stat status {};
    const bool is_file = directory && ::fstatat(directory->get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                         S_ISREG(status.st_mode);
    if (!is_file) continue;
    const Fd file(::openat(directory->get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file || ::fsync(file.get()) != 0) return sys_fail("sync " + quote(entry.path));
  }
  for (const auto& directory : manifest.directories) parents.insert(directory.path);
  for (const auto& path : parents)
    if (const auto directory = open_directory_in_root(root, path); directory && ::fsync(directory->get()) != 0)
      return sys_fail("sync directory " + quote(path));
  return {};
}

bool is_same(const Place& a, const PlaceState& state, std::string_view content) {
  if (a.state.kind != state.kind) return false;
  if (state.kind == PlaceKind::kFile) return a.content == content;
  return state.kind == PlaceKind::kNothing || a.state.target == state.target;
}

// As it was left by apply_edit, or as it was before: the rest is the guest's doing since.
Result<bool> is_ours(const Place& now, const ManifestEntry& entry, std::string_view original_content,
                     const std::string& edited_path) {
  if (is_same(now, entry.original, original_content)) return true;
  PlaceState edited;
  edited.kind = entry.edited, edited.target = entry.edited_target;
  std::string content;
  if (entry.edited == PlaceKind::kFile) content = TRY(read_file(edited_path, kMaxOriginalBytes));
  return is_same(now, edited, content);
}

// One entry; a finding where the guest has changed it, or where it cannot come back.
Result<void> undo_entry(const DirFd& root, const ManifestEntry& entry, std::size_t n,
                        const std::string& originals_dir, std::vector<Finding>& findings) {
  const auto original_file = original_path(originals_dir, n, "original");
  std::string content;
  if (entry.original.kind == PlaceKind::kFile) content = TRY(read_file(original_file, kMaxOriginalBytes));
  const auto lose = [&](const Error& error) {
    findings.push_back({Severity::kLoss, entry.path, "its original could not be brought back: " + error.text,
                        entry.original.kind == PlaceKind::kFile ? "copy it from " + original_file : ""});
    return Result<void>();
  };
  const auto [parent, name] = TRY(split_path(entry.path));
  const auto directory = open_directory_in_root(root, parent);
  if (!directory) {
    const bool is_gone = directory.error().sys_errno == ENOENT && entry.original.kind == PlaceKind::kNothing;
    return is_gone ? Result<void>() : lose(directory.error());
  }
  const auto now = read_place(*directory, name);
  if (!now) return lose(now.error());
  if (!TRY(is_ours(*now, entry, content, original_path(originals_dir, n, "edited")))) {
    const auto changed = original_path(originals_dir, n, "changed");
    if (now->state.kind == PlaceKind::kFile) TRY(write_atomic(changed, now->content));
    findings.push_back({Severity::kChange, entry.path, "was changed after the conversion; its original is back",
                        now->state.kind == PlaceKind::kFile ? "compare with " + changed : ""});
  }
  const auto put = put_place(*directory, name, entry.original, content, Keep::kAll);
  return put ? Result<void>() : lose(put.error());
}

void remove_made(const DirFd& root, const std::vector<std::string>& made) {
  for (auto path = made.rbegin(); path != made.rend(); ++path) {
    const auto parts = split_path(*path);
    if (!parts) continue;
    // One that holds something by now is the guest's.
    if (const auto directory = open_directory_in_root(root, parts->first))
      (void)::unlinkat(directory->get(), parts->second.c_str(), AT_REMOVEDIR);
  }
}

void restore_times(const DirFd& root, const std::vector<ManifestDirectory>& directories) {
  for (const auto& noted : directories) {
    const auto directory = open_directory_in_root(root, noted.path);
    if (!directory) continue;
    (void)::unlinkat(directory->get(), kTempName, 0);
    const timespec times[] = {noted.accessed, noted.modified};
    (void)::futimens(directory->get(), times);
  }
}

}  // namespace

bool has_originals(const std::string& originals_dir) {
  struct stat status {};
  return ::lstat((originals_dir + "/" + kManifestName).c_str(), &status) == 0;
}

Result<void> apply_edits(const DirFd& root, const std::vector<PlacedEdit>& edits, const std::string& originals_dir) {
  TRY(make_directories(originals_dir, 0700));
  if (has_originals(originals_dir))
    return fail(VIR_ERR_OPERATION_INVALID,
                "originals of earlier edits are in " + quote(originals_dir) + ": bring them back first");
  Manifest manifest;
  TRY(keep_originals(root, edits, originals_dir, manifest));
  TRY(sync_originals(manifest, originals_dir));
  TRY(write_atomic(originals_dir + "/" + kManifestName, format_manifest(manifest)));
  for (const auto& path : manifest.made) TRY(make_directory(root, path));
  for (std::size_t n = 0; n < edits.size(); ++n)
    TRY(apply_edit(root, edits[n], manifest.entries[n].original), "edit " + quote(edits[n].path));
  return sync_places(root, manifest);
}

Result<std::vector<Finding>> undo_edits(const DirFd& root, const std::string& originals_dir) {
  std::vector<Finding> findings;
  if (!has_originals(originals_dir)) return findings;
  const auto manifest_path = originals_dir + "/" + kManifestName;
  const auto manifest =
      TRY(parse_manifest(TRY(read_file(manifest_path, kMaxManifestBytes))), "read " + quote(manifest_path));
  for (std::size_t n = 0; n < manifest.entries.size(); ++n)
    TRY(undo_entry(root, manifest.entries[n], n, originals_dir, findings),
        "bring back " + quote(manifest.entries[n].path));
  remove_made(root, manifest.made);
  restore_times(root, manifest.directories);
  TRY(sync_places(root, manifest));
  TRY(remove_durable(manifest_path));
  return findings;
}

}  // namespace virtuserns::convert
