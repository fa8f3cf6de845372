#include "driver/compute/machine_xml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "xml/node.h"

namespace virtuserns::compute {
namespace {

using testing::HasSubstr;
using testing::Not;

Record record_of(std::map<std::string, std::string> specs = {}) {
  Record record;
  record.spec.uuid = "5b3a1f0e-0000-4000-8000-000000000001";
  record.spec.name = "vm";
  record.spec.display_name = "a <b>\n'c'";
  record.spec.flavor = {2, 128, 1, 0, 0, std::move(specs)};
  record.image = ImageRef{"key", "qcow2"};
  record.volumes.push_back({"/dev/vdb", "/dev/sdb", "se<rial", true, false});
  return record;
}

const GuestType kEmulated{"x86_64", "qemu", "hvm"};
const MachineParts kParts{"/i/disk.qcow2", "/i/base.raw", "", "", "", "/i/console.log"};

TEST(MachineXml, HardwareIsPreferred) {
  const GuestType kvm{"x86_64", "kvm", "hvm"}, other{"i686", "kvm", "hvm"}, container{"x86_64", "lxc", "exe"};
  EXPECT_EQ(choose_machine_type({other, kEmulated, kvm}).value(), kvm);
  EXPECT_EQ(choose_machine_type({other, kEmulated}).value(), kEmulated);
  EXPECT_EQ(choose_machine_type({other, container}).error().code, VIR_ERR_CONFIG_UNSUPPORTED);
  EXPECT_THAT(make_machine_xml(record_of(), kvm, kParts).value(), HasSubstr("<cpu mode='host-model'/>"));
  EXPECT_THAT(make_machine_xml(record_of(), kEmulated, kParts).value(), Not(HasSubstr("<cpu")));
}

TEST(MachineXml, WhatPeopleWroteIsText) {
  const auto text = make_machine_xml(record_of(), kEmulated, kParts).value();
  const auto document = xml::Document::parse(text);
  ASSERT_TRUE(document);
  EXPECT_EQ(document->root().child("title").text(), "a <b> 'c'");
  const auto disks = document->root().child("devices").children("disk");
  ASSERT_EQ(disks.size(), 2U);
  EXPECT_EQ(disks[1].child("serial").text(), "se<rial");
  EXPECT_TRUE(disks[1].child("readonly"));
}

TEST(MachineXml, WhatItBootsFromComesFirst) {
  const auto devices_of = [](const Record& record, const MachineParts& parts) {
    std::vector<std::string> found;
    const auto document = xml::Document::parse(make_machine_xml(record, kEmulated, parts).value());
    for (const auto& disk : document->root().child("devices").children("disk"))
      found.push_back(disk.child("target").attribute_or("dev"));
    return found;
  };
  auto record = record_of();
  EXPECT_EQ(devices_of(record, kParts), (std::vector<std::string>{"vda", "vdb"}));
  record.rescue = ImageRef{"rescue", "qcow2"};
  EXPECT_EQ(devices_of(record, {"/disk", "/base", "/rescue", "/other", "/drive", "/log"}),
            (std::vector<std::string>{"vda", "vdy", "vdb", "vdz"}));
  record.rescue.reset();
  record.image.reset();
  record.volumes.push_back({"/dev/vda", "/dev/sdc", "", false, true});
  EXPECT_EQ(devices_of(record, {"", "", "", "", "", "/log"}), (std::vector<std::string>{"vda", "vdb"}));
}

TEST(MachineXml, LimitsOfTheFlavor) {
  const auto record = record_of({{"quota:cpu_shares", "512"},
                                 {"quota:cpu_quota", "50000"},
                                 {"quota:disk_read_iops_sec", "100"},
                                 {"quota:disk_write_bytes_sec", "1048576"}});
  const auto text = make_machine_xml(record, kEmulated, kParts).value();
  for (const auto* part : {"<shares>512</shares>", "<quota>50000</quota>", "<read_iops_sec>100</read_iops_sec>",
                           "<write_bytes_sec>1048576</write_bytes_sec>"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(make_machine_xml(record_of(), kEmulated, kParts).value(), Not(HasSubstr("tune>")));
  for (const auto* key : {"quota:cpu_shares", "quota:disk_read_bytes_sec"})
    EXPECT_EQ(make_machine_xml(record_of({{key, "much"}}), kEmulated, kParts).error().code, VIR_ERR_INVALID_ARG)
        << key;
}

}  // namespace
}  // namespace virtuserns::compute
