// tests/golden/domain/NAME.in.xml is parsed, defaulted, printed and compared with NAME.out.xml; what was printed must
// come back unchanged. UPDATE_GOLDEN=1 rewrites the .out.xml files: read the diff before you commit it.
// Names: live-*: with id, aliases and ttys; ext-*: what libvirt's schema does not have (validate.py leaves them out).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "conf/defaults.h"
#include "conf/validate.h"
#include "tests/golden/golden_files.h"
#include "xml/domain.h"

namespace virtuserns {
namespace {

namespace fs = std::filesystem;

using golden::read;

class DomainGolden : public testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] bool is_live() const { return GetParam().starts_with("live-"); }
  [[nodiscard]] DomainDef load(const std::string& text) const {
    auto def = xml::parse_domain(text, is_live() ? xml::kParseLive : xml::kParseInactive);
    EXPECT_TRUE(def) << def.error().text;
    if (!def) return {};
    apply_defaults(*def, {"x86_64", "/usr/libexec/virtuserns/virtuserns-controller"});
    return std::move(*def);
  }
  [[nodiscard]] std::string print(const DomainDef& def) const {
    return xml::format_domain(def, is_live() ? xml::FormatKind::kActive : xml::FormatKind::kInactive);
  }
};

TEST_P(DomainGolden, PrintsAsExpectedAndComesBackUnchanged) {
  const auto stem = (fs::path(GOLDEN_DIR) / "domain" / GetParam()).string();
  const auto def = load(read(stem + ".in.xml"));
  const auto printed = print(def);
  if (std::getenv("UPDATE_GOLDEN")) std::ofstream(stem + ".out.xml", std::ios::binary) << printed;
  EXPECT_EQ(read(stem + ".out.xml"), printed);
  const auto again = load(printed);
  EXPECT_EQ(print(again), printed);
  const auto verdict = validate(def);
  EXPECT_TRUE(verdict) << verdict.error().text;
}

TEST_P(DomainGolden, IsUnharmedByTheStatusForm) {
  const auto stem = (fs::path(GOLDEN_DIR) / "domain" / GetParam()).string();
  auto def = load(read(stem + ".in.xml"));
  def.id = 4711;
  const auto printed = xml::format_domain(def, xml::FormatKind::kStatus, xml::Secrets::kShow);
  const auto again = xml::parse_domain(printed, xml::kParseLive);
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_EQ(xml::format_domain(*again, xml::FormatKind::kStatus, xml::Secrets::kShow), printed);
}

INSTANTIATE_TEST_SUITE_P(Files, DomainGolden, testing::ValuesIn(golden::names_in(fs::path(GOLDEN_DIR) / "domain")),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace virtuserns
