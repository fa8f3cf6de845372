// The way back: bytes, mode, owner, attributes and times, also when the guest has been at work since.
#include "tools/convert/originals.h"

#include <sys/xattr.h>

#include "tests/unit/convert/tree.h"
#include "tools/convert/manifest.h"

namespace virtuserns::convert {
namespace {

namespace fs = std::filesystem;

// One line for each entry of the tree, with all that an undo must bring back.
std::string manifest_of(const std::string& root) {
  std::vector<std::string> lines;
  const auto line_of = [&](const fs::path& path) {
    struct stat status {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0);
    std::string line = path.string() + " " + std::to_string(status.st_mode) + " " + std::to_string(status.st_uid) +
                       " " + std::to_string(status.st_gid) + " " + std::to_string(status.st_mtim.tv_sec) + "." +
                       std::to_string(status.st_mtim.tv_nsec);
    char buffer[256];
    const auto size = ::lgetxattr(path.c_str(), "user.note", buffer, sizeof buffer);
    if (size > 0) line += " note=" + std::string(buffer, static_cast<std::size_t>(size));
    if (S_ISLNK(status.st_mode)) line += " -> " + fs::read_symlink(path).string();
    if (S_ISREG(status.st_mode)) {
      std::ifstream in(path, std::ios::binary);
      line += " = " + std::string(std::istreambuf_iterator<char>(in), {});
    }
    return line;
  };
  lines.push_back(line_of(root));
  for (const auto& entry : fs::recursive_directory_iterator(root)) lines.push_back(line_of(entry.path()));
  std::sort(lines.begin(), lines.end());
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  return text;
}

class Originals : public testing::Test {
 protected:
  Originals() {
    tree_.write("/etc/fstab", "UUID=1 / ext4 defaults 0 1\n");
    tree_.write("/etc/keep", "untouched");
    tree_.write("/etc/gone", "to be removed");
    tree_.link("/etc/alias", "../usr/lib/thing");
    ::chmod(tree_.path("/etc/fstab").c_str(), 04640);
    if (::geteuid() == 0) {
      EXPECT_EQ(::chown(tree_.path("/etc/fstab").c_str(), 1000, 1001), 0);
    }
    EXPECT_EQ(::chmod(tree_.path("/etc/fstab").c_str(), 04640), 0);
    // tmpfs has no user attributes on old kernels: then there is nothing to bring back.
    (void)::setxattr(tree_.path("/etc/fstab").c_str(), "user.note", "kept", 4, 0);
    for (const auto* name : {"/etc/fstab", "/etc/gone", "/etc/alias", "/etc"}) {
      const timespec times[] = {{1000000000, 1}, {1111111111, 222222222}};
      EXPECT_EQ(::utimensat(AT_FDCWD, tree_.path(name).c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
    }
    before_ = manifest_of(tree_.root());
  }

  void edit() {
    auto files = tree_.files();
    ASSERT_TRUE(files.replace("/etc/fstab", "# nothing\n"));
    ASSERT_TRUE(files.remove("/etc/gone"));
    ASSERT_TRUE(files.symlink("/etc/alias", "/dev/null"));
    ASSERT_TRUE(files.symlink("/etc/systemd/system/a.service", "/dev/null"));
    ASSERT_TRUE(files.replace("/etc/new/deep/file", "made"));
    const auto done = files.commit(tree_.originals());
    ASSERT_TRUE(done) << done.error().text;
  }
  std::vector<Finding> undo() {
    const auto root = tree_.open();
    auto findings = undo_edits(root, tree_.originals());
    EXPECT_TRUE(findings) << findings.error().text;
    return findings ? *findings : std::vector<Finding>{};
  }

  Tree tree_;
  std::string before_;
};

TEST_F(Originals, EditsKeepOwnerModeAndAttributes) {
  edit();
  EXPECT_EQ(tree_.read("/etc/fstab"), "# nothing\n");
  EXPECT_FALSE(fs::exists(tree_.path("/etc/gone")));
  EXPECT_EQ(tree_.target("/etc/alias"), "/dev/null");
  EXPECT_EQ(tree_.target("/etc/systemd/system/a.service"), "/dev/null");
  EXPECT_EQ(tree_.read("/etc/new/deep/file"), "made");
  struct stat status {};
  ASSERT_EQ(::stat(tree_.path("/etc/fstab").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 04640u);
  if (::geteuid() == 0) {
    EXPECT_EQ(status.st_uid, 1000u);
  }
}

TEST_F(Originals, UndoBringsEverythingBack) {
  edit();
  EXPECT_NE(manifest_of(tree_.root()), before_);
  EXPECT_EQ(all_of(undo()), "");
  EXPECT_EQ(manifest_of(tree_.root()), before_);
  EXPECT_FALSE(has_originals(tree_.originals()));
  EXPECT_EQ(all_of(undo()), "");  // nothing more to do
  EXPECT_EQ(manifest_of(tree_.root()), before_);
}

TEST_F(Originals, AnUndoThatWasInterruptedIsDoneAgain) {
  edit();
  const auto kept = tree_.outside() + "/kept";
  fs::copy(tree_.originals(), kept, fs::copy_options::recursive);
  undo();
  // The manifest is what is removed last: the whole undo runs over a tree that is back already.
  fs::copy(kept, tree_.originals(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  EXPECT_EQ(all_of(undo()), "");
  EXPECT_EQ(manifest_of(tree_.root()), before_);
}

TEST_F(Originals, EachMomentOfAnEditCanBeUndone) {
  edit();
  // Any subset of the edits may have reached the disk when the machine stopped; a half-written temporary may be left.
  undo();
  for (int done = 0; done < 5; ++done) {
    edit();
    const auto root = tree_.open();
    if (done < 1) tree_.write("/etc/fstab", "UUID=1 / ext4 defaults 0 1\n");
    if (done < 2) tree_.write("/etc/gone", "to be removed");
    if (done < 3) fs::remove(tree_.path("/etc/alias")), tree_.link("/etc/alias", "../usr/lib/thing");
    if (done < 4) fs::remove_all(tree_.path("/etc/new"));
    tree_.write("/etc/.virtuserns-convert.tmp", "half");
    EXPECT_EQ(all_of(undo()), "") << done;
    EXPECT_EQ(manifest_of(tree_.root()), before_) << done;
  }
}

TEST_F(Originals, WhatTheGuestChangedIsKeptAndTold) {
  edit();
  tree_.write("/etc/fstab", "the guest's own line\n");
  tree_.write("/etc/new/deep/more", "the guest's own file");
  const auto findings = undo();
  ASSERT_EQ(about(findings, "/etc/fstab").size(), 1u) << all_of(findings);
  EXPECT_EQ(tree_.read("/etc/fstab"), "UUID=1 / ext4 defaults 0 1\n");
  EXPECT_EQ(tree_.read("/etc/new/deep/more"), "the guest's own file");
  bool is_kept = false;
  for (const auto& entry : fs::directory_iterator(tree_.originals())) {
    if (entry.path().extension() != ".changed") continue;
    std::ifstream in(entry.path());
    is_kept |= std::string(std::istreambuf_iterator<char>(in), {}) == "the guest's own line\n";
  }
  EXPECT_TRUE(is_kept);
}

TEST_F(Originals, AGuestThatSetsTrapsLosesOnlyItsOwn) {
  edit();
  std::ofstream(tree_.outside() + "/canary") << "of the host";
  fs::remove(tree_.path("/etc/fstab"));
  fs::create_directory(tree_.path("/etc/fstab"));  // a directory in the place of a file
  fs::remove_all(tree_.path("/etc/systemd"));
  tree_.link("/etc/systemd", tree_.outside());  // a way out
  fs::remove(tree_.path("/etc/alias"));
  tree_.fifo("/etc/alias");
  const auto findings = undo();
  EXPECT_EQ(about(findings, "/etc/fstab").size(), 1u) << all_of(findings);
  EXPECT_EQ(about(findings, "/etc/alias").size(), 1u) << all_of(findings);
  EXPECT_EQ(worst(findings), Severity::kLoss);
  std::ifstream in(tree_.outside() + "/canary");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "of the host");
  EXPECT_EQ(tree_.read("/etc/gone"), "to be removed");
}

TEST_F(Originals, NothingIsChangedWhereOriginalsAreAlready) {
  edit();
  auto files = tree_.files();
  ASSERT_TRUE(files.replace("/etc/keep", "changed"));
  EXPECT_FALSE(files.commit(tree_.originals()));
  EXPECT_EQ(tree_.read("/etc/keep"), "untouched");
}

TEST_F(Originals, NothingIsChangedWhereOriginalsCannotBeKept) {
  auto files = tree_.files();
  ASSERT_TRUE(files.replace("/etc/fstab", "new"));
  std::ofstream(tree_.originals()) << "a file in the place of the directory";
  EXPECT_FALSE(files.commit(tree_.originals()));
  EXPECT_EQ(manifest_of(tree_.root()), before_);
}

TEST(Manifest, DamageIsToldAndNamesAreBytes) {
  Manifest manifest;
  ManifestEntry entry;
  entry.path = "/etc/\xff\n%name";
  entry.original.kind = PlaceKind::kLink, entry.original.target = "\x1b[31m";
  entry.original.xattrs["user.x"] = std::string("\0\xfe", 2);
  manifest.entries.push_back(entry);
  manifest.directories.push_back({"etc", {1, 2}, {3, 4}});
  manifest.made = {"etc/new"};
  const auto text = format_manifest(manifest);
  const auto again = parse_manifest(text);
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_EQ(again->entries[0].path, entry.path);
  EXPECT_EQ(again->entries[0].original.target, entry.original.target);
  EXPECT_EQ(again->entries[0].original.xattrs, entry.original.xattrs);
  EXPECT_EQ(again->directories[0].modified.tv_nsec, 4);
  EXPECT_EQ(format_manifest(*again), text);
  for (std::size_t i = 0; i + 2 < text.size(); ++i) EXPECT_FALSE(parse_manifest(text.substr(0, i))) << i;
  for (const auto* bad :
       {"null", "[]", "{\"format\": 2}", "{\"format\": 1, \"entries\": [7], \"directories\": [], \"made\": []}"})
    EXPECT_FALSE(parse_manifest(bad)) << bad;
}

}  // namespace
}  // namespace virtuserns::convert
