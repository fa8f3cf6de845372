// The rules on trees of somebody who means harm.
#include "tests/unit/convert/systems.h"
#include "tools/convert/originals.h"

namespace virtuserns::convert {
namespace {

// Every file that rules read or write is a trap; the host's files beside the root are not touched, and it ends.
TEST(RulesOnTraps, EveryFileIsOne) {
  const Tree tree;
  const auto canary = tree.outside() + "/canary";
  std::ofstream(canary) << "of the host";
  const std::vector<std::string> names = {"/etc/os-release",
                                          "/etc/fstab",
                                          "/etc/crypttab",
                                          "/etc/network/interfaces",
                                          "/etc/rsyslog.conf",
                                          "/etc/inittab",
                                          "/etc/rc.conf",
                                          "/etc/machine-id",
                                          "/etc/selinux/config",
                                          "/etc/modules",
                                          "/etc/sysctl.conf",
                                          "/etc/dnf/dnf.conf",
                                          "/etc/zypp/locks",
                                          "/etc/initramfs-tools/update-initramfs.conf",
                                          "/etc/systemd/journald.conf",
                                          "/etc/systemd/system/srv.mount",
                                          "/etc/systemd/system/systemd-udevd.service",
                                          "/etc/netplan/x.yaml",
                                          "/etc/NetworkManager/system-connections/x",
                                          "/etc/apt/preferences.d/virtuserns-convert",
                                          "/etc/cloud/cloud-init.disabled"};
  for (int kind = 0; kind < 6; ++kind) {
    std::filesystem::remove_all(tree.root());
    std::filesystem::create_directory(tree.root());
    elf(tree, "/lib/systemd/systemd");
    tree.link("/sbin/init", "/lib/systemd/systemd");
    units(tree, {"systemd-udevd.service", "NetworkManager.service"});
    enable(tree, "NetworkManager.service");
    tree.directory("/var/lib/dpkg");
    tree.write("/usr/bin/cloud-init", "");
    for (const auto& name : names) {
      tree.directory(std::filesystem::path(name).parent_path().string());
      if (kind == 0) tree.link(name, canary);
      if (kind == 1) tree.fifo(name);
      if (kind == 2) tree.directory(name);
      if (kind == 3) tree.link(name, std::filesystem::path(name).filename().string());
      if (kind == 4) tree.write(name, ""), std::filesystem::resize_file(tree.path(name), 1u << 30);
      if (kind == 5)
        tree.write(name, std::string("\x1b[2J\xff\0\n=:= \"'{[<&;|`$(x)\n", 24) + std::string(65536, 'a') + " / x\n");
    }
    GuestOptions options = options_with_card();
    options.machine_id = MachineId::kReset;
    const auto findings = plan_guest(tree.open(), options);
    (void)edit_guest(tree.open(), options, tree.originals(), OnBlock::kEdit);
    (void)undo_edits(tree.open(), tree.originals());
    std::filesystem::remove_all(tree.originals());
    std::ifstream in(canary);
    ASSERT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "of the host") << kind;
    for (const auto& entry : std::filesystem::directory_iterator(tree.outside()))
      EXPECT_TRUE(entry.path() == canary || entry.path() == tree.root()) << entry.path();
  }
}

// Directories that lead out, and names that no terminal should see.
TEST(RulesOnTraps, DirectoriesThatAreLinksStayInside) {
  const Tree tree;
  std::filesystem::create_directories(tree.outside() + "/host/systemd/system");
  elf(tree, "/lib/systemd/systemd");
  tree.link("/sbin/init", "/lib/systemd/systemd");
  units(tree, {"systemd-udevd.service"});
  tree.link("/etc", tree.outside() + "/host");
  const auto done = edit_guest(tree.open(), options_with_card(), tree.originals());
  EXPECT_TRUE(std::filesystem::is_empty(tree.outside() + "/host/systemd/system"));
  (void)done;
}

TEST(RulesOnTraps, WhatIsReadAndSaidIsBounded) {
  const Tree tree;
  elf(tree, "/lib/systemd/systemd");
  tree.link("/sbin/init", "/lib/systemd/systemd");
  std::string fstab;
  for (int i = 0; i < 5000; ++i)
    fstab += "/dev/x" + std::to_string(i) + " /mnt/" + std::to_string(i) + " ext4 nofail\n";
  tree.write("/etc/fstab", fstab + "/dev/worst /needed ext4\n");
  // 200 MiB, that are read several times over.
  for (int i = 0; i < 200; ++i) {
    const auto name = "/etc/netplan/" + std::to_string(i) + ".yaml";
    tree.write(name, "");
    std::filesystem::resize_file(tree.path(name), kMaxGuestFileBytes);
  }
  const auto findings = plan_guest(tree.open(), options_with_card());
  EXPECT_LE(findings.size(), 501u);
  EXPECT_EQ(findings.front().severity, Severity::kBlock);
  const auto files = tree.files();
  for (int i = 0; i < 200; ++i) (void)files.read("/etc/netplan/" + std::to_string(i) + ".yaml");
  EXPECT_FALSE(files.refused().empty());
  EXPECT_FALSE(files.read("/etc/fstab"));
}

}  // namespace
}  // namespace virtuserns::convert
