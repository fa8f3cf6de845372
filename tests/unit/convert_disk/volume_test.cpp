#include "tools/convert/volume.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#include "tests/unit/convert_disk/disk_bytes.h"

namespace virtuserns::convert {
namespace {

std::vector<Volume> some_volumes() {
  Volume root, home, logical;
  root.name = "vda2";
  root.uuid = "9b8e3b8a-3a6f-4c63-8c94-0f3d1e0f7a11";
  root.label = "root";
  root.part_uuid = "ea8e050c-02";
  root.part_label = "linux";
  home.name = "vdb";
  home.uuid = "1111-2222";
  logical.name = "my-vg/home-dir";
  return {root, home, logical};
}

std::string resolved(std::string_view spec) {
  static const auto volumes = some_volumes();
  const auto* volume = resolve_spec(volumes, spec);
  return volume ? volume->name : "";
}

TEST(Volume, ResolvesWhatFstabSays) {
  EXPECT_EQ(resolved("UUID=9b8e3b8a-3a6f-4c63-8c94-0f3d1e0f7a11"), "vda2");
  EXPECT_EQ(resolved("UUID=\"9B8E3B8A-3A6F-4C63-8C94-0F3D1E0F7A11\""), "vda2");
  EXPECT_EQ(resolved("LABEL=root"), "vda2");
  EXPECT_EQ(resolved("LABEL=Root"), "");
  EXPECT_EQ(resolved("PARTUUID=ea8e050c-02"), "vda2");
  EXPECT_EQ(resolved("PARTLABEL=linux"), "vda2");
  EXPECT_EQ(resolved("/dev/disk/by-uuid/1111-2222"), "vdb");
  EXPECT_EQ(resolved("/dev/vda2"), "vda2");
  EXPECT_EQ(resolved("/dev/sda2"), "vda2");
  EXPECT_EQ(resolved("/dev/xvdb"), "vdb");
  EXPECT_EQ(resolved("/dev/my-vg/home-dir"), "my-vg/home-dir");
  EXPECT_EQ(resolved("/dev/mapper/my--vg-home--dir"), "my-vg/home-dir");
  for (const auto* spec :
       {"", "UUID=", "LABEL=", "tmpfs", "/dev/", "/dev/vda", "vda2", "/dev/vda20", "server:/export"})
    EXPECT_EQ(resolved(spec), "") << spec;
}

TEST(Volume, FindsThePartsOfADisk) {
  const test::TempDir dir;
  const auto bytes = corpus("partition/mbr-logical");
  ASSERT_TRUE(write_atomic(dir.path() + "/disk", bytes));
  const Fd file(::open((dir.path() + "/disk").c_str(), O_RDONLY | O_CLOEXEC));
  const DiskView view{"vda", &file, disk_of(bytes)};
  auto volumes = find_volumes({&view, 1});
  ASSERT_TRUE(volumes) << volumes.error().text;
  ASSERT_EQ(volumes->all.size(), 3u);
  EXPECT_EQ(volumes->all[1].name, "vda5");
  EXPECT_EQ(volumes->all[1].part_uuid, "ea8e050c-05");
  EXPECT_FALSE(is_mountable(volumes->all[0]));
}

TEST(Volume, FindsLogicalVolumesOfAWholeDisk) {
  const test::TempDir dir;
  auto bytes = corpus("lvm/physical");
  bytes.resize(64 * 1024 * 1024);
  ASSERT_TRUE(write_atomic(dir.path() + "/disk", bytes));
  const Fd file(::open((dir.path() + "/disk").c_str(), O_RDONLY | O_CLOEXEC));
  const DiskView view{"vdb", &file, disk_of(bytes)};
  auto volumes = find_volumes({&view, 1});
  ASSERT_TRUE(volumes) << volumes.error().text;
  ASSERT_EQ(volumes->all.size(), 3u);
  EXPECT_EQ(volumes->all[0].type, "LVM2_member");
  EXPECT_EQ(volumes->all[1].name, "vg0/root");
  EXPECT_EQ(volumes->all[1].offset, 1024u * 1024);
  EXPECT_EQ(volumes->all[1].disk, "vdb");
}

}  // namespace
}  // namespace virtuserns::convert
