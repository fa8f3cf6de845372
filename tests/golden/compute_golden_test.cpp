// tests/golden/compute/NAME.in.json, the journal of an instance, becomes the domain NAME.out.xml. UPDATE_GOLDEN=1 rewrites that: read
// the diff before you commit it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "conf/defaults.h"
#include "conf/validate.h"
#include "driver/compute/domain_xml.h"
#include "tests/golden/golden_files.h"
#include "xml/domain.h"

namespace virtuserns::compute {
namespace {

namespace fs = std::filesystem;

using golden::read;

const fs::path kFolder = fs::path(GOLDEN_DIR) / "compute";
constexpr const char* kInput = ".in.json";

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& entry : fs::directory_iterator(kFolder))
    if (const auto file = entry.path().filename().string(); file.ends_with(kInput))
      all.push_back(file.substr(0, file.size() - std::string_view(kInput).size()));
  std::sort(all.begin(), all.end());
  return all;
}

Places places_of(const Record& record) {
  const std::string folder = "/var/lib/virtuserns/compute/instances/" + record.spec.uuid;
  const std::string bases = "/var/lib/virtuserns/compute/images/bases/";
  Places places;
  if (record.image)
    places.base = bases + record.image->key, places.root = folder + "/disk/root", places.disk_device = "/dev/loop3";
  if (record.rescue) places.rescue_base = bases + record.rescue->key, places.rescue_root = folder + "/disk/rescue";
  if (record.has_config_drive) places.config_drive = folder + "/config-2";
  places.console_log = folder + "/console.log";
  return places;
}

class ComputeGolden : public testing::TestWithParam<std::string> {};

TEST_P(ComputeGolden, IsTheDomainThatIsExpected) {
  const auto stem = (kFolder / GetParam()).string();
  const auto record = parse_record(read(stem + kInput));
  ASSERT_TRUE(record) << record.error().text;
  const auto printed = make_domain_xml(*record, places_of(*record));
  ASSERT_TRUE(printed) << printed.error().text;
  if (std::getenv("UPDATE_GOLDEN")) std::ofstream(stem + ".out.xml", std::ios::binary) << *printed;
  EXPECT_EQ(read(stem + ".out.xml"), *printed);

  // As the daemon takes it: nothing that a scheduler says is more than the text that it is.
  auto again = xml::parse_domain(*printed);
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_EQ(again->filesystems.size(),
            (record->image ? 1u : 0u) + (record->rescue ? 1u : 0u) + (record->has_config_drive ? 1u : 0u) +
                static_cast<std::size_t>(std::count_if(record->volumes.begin(), record->volumes.end(),
                                                       [](const auto& volume) { return volume.is_root; })));
  EXPECT_EQ(again->interfaces.size(), record->network.size());
  EXPECT_EQ(again->consoles.size(), 1u);
  apply_defaults(*again, {"x86_64", {}});
  const auto verdict = validate(*again);
  EXPECT_TRUE(verdict) << verdict.error().text;
  EXPECT_EQ(read_ids(*printed).value(), record->spec.ids);
}

INSTANTIATE_TEST_SUITE_P(Files, ComputeGolden, testing::ValuesIn(names()), [](const auto& named) {
  auto name = named.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(ExtraSpecs, OfWhichNoneMakesSense) {
  auto record = parse_record(read(kFolder / "plain.in.json")).value();
  for (const auto& [key, value] :
       {std::pair("quota:cpu_shares", "1"), std::pair("quota:cpu_shares", "x"), std::pair("quota:cpu_period", "999"),
        std::pair("quota:cpu_quota", "-1"), std::pair("quota:disk_read_bytes_sec", "0"),
        std::pair("quota:disk_write_iops_sec", "4294967296"), std::pair("quota:cpu_shares", " 512")}) {
    record.spec.flavor.extra_specs = {{key, value}};
    const auto made = make_domain_xml(record, places_of(record));
    ASSERT_FALSE(made) << key << value;
    EXPECT_EQ(made.error().code, VIR_ERR_INVALID_ARG);
    EXPECT_NE(made.error().text.find(key), std::string::npos) << made.error().text;
  }
}

}  // namespace
}  // namespace virtuserns::compute
