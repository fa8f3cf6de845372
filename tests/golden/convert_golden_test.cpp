// tests/golden/convert/NAME.in.xml, a machine as libvirt or virt-install printed it, becomes NAME.out.xml and the report
// NAME.txt. UPDATE_GOLDEN=1 rewrites both: read the diff before you commit it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "conf/defaults.h"
#include "conf/validate.h"
#include "tests/golden/golden_files.h"
#include "tools/convert/map_domain.h"
#include "tools/convert/report.h"
#include "xml/domain.h"

namespace virtuserns::convert {
namespace {

namespace fs = std::filesystem;

using golden::read;

MapOptions options_of(const KvmDomain& domain) {
  MapOptions options;
  FilesystemDef root;
  root.type = FilesystemType::kFile;
  root.driver_type = "nbd", root.driver_format = "qcow2";
  root.source = "/var/lib/virtuserns/convert/overlay.qcow2", root.target = "/";
  options.filesystems.push_back(root);
  options.converted_disks = {"vda", "sda"};
  options.shares = {{"webtag", "/srv/web"}, {"sharetag", "/mnt/share"}};
  for (std::size_t i = 0; i < domain.nics.size(); ++i)
    options.nics.push_back({domain.nics[i].mac, "eth" + std::to_string(i), {}});
  options.autostart = true;
  return options;
}

class ConvertGolden : public testing::TestWithParam<std::string> {};

TEST_P(ConvertGolden, MapsAsExpected) {
  const auto stem = (fs::path(GOLDEN_DIR) / "convert" / GetParam()).string();
  const auto text = read(stem + ".in.xml");
  const auto domain = read_kvm_domain(text);
  ASSERT_TRUE(domain) << domain.error().text;
  const auto mapped = map_domain(text, options_of(*domain));
  ASSERT_TRUE(mapped) << mapped.error().text;
  const auto printed = xml::format_domain(mapped->def, xml::FormatKind::kInactive);
  const auto report = format_report({domain->name, mapped->findings});
  if (std::getenv("UPDATE_GOLDEN")) {
    std::ofstream(stem + ".out.xml", std::ios::binary) << printed;
    std::ofstream(stem + ".txt", std::ios::binary) << report;
  }
  EXPECT_EQ(read(stem + ".out.xml"), printed);
  EXPECT_EQ(read(stem + ".txt"), report);

  // As the daemon takes it.
  auto again = xml::parse_domain(printed);
  ASSERT_TRUE(again) << again.error().text;
  apply_defaults(*again, {"x86_64", {}});
  EXPECT_EQ(xml::format_domain(*again, xml::FormatKind::kInactive), printed);
  const auto verdict = validate(*again);
  EXPECT_TRUE(verdict) << verdict.error().text;
}

INSTANTIATE_TEST_SUITE_P(Files, ConvertGolden, testing::ValuesIn(golden::names_in(fs::path(GOLDEN_DIR) / "convert")),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace virtuserns::convert
