#include "tools/convert/report.h"

#include <nlohmann/json.hpp>

#include "tests/unit/convert/tree.h"

namespace virtuserns::convert {
namespace {

const Report kReport = {
    "web1",
    {{Severity::kNote, "system", "Debian GNU/Linux 12 (bookworm), started by systemd", ""},
     {Severity::kBlock, "fstab '/srv'", "'/dev/vdb' is no volume that was found: the guest needs it at boot",
      "convert the disk that has it too, or take the line out of the machine's fstab"},
     {Severity::kChange, "/etc/\x1b]0;owned\x07\n\xff\xc2\x9b", "a name of the guest", ""}}};

std::size_t columns_of(std::string_view line) {
  return static_cast<std::size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

TEST(Report, TextIsOfEightyColumnsWorstFirst) {
  const auto text = format_report(kReport);
  EXPECT_TRUE(text.starts_with("web1: blocked (1 block, 1 change, 1 note)\nblock   fstab")) << text;
  std::size_t start = 0;
  for (auto end = text.find('\n'); end != std::string::npos; start = end + 1, end = text.find('\n', start))
    EXPECT_LE(columns_of(std::string_view(text).substr(start, end - start)), 80u);
  EXPECT_NE(text.find("-> convert the disk"), std::string::npos);
}

TEST(Report, NothingOfAGuestReachesATerminalRaw) {
  for (const auto& text :
       {format_report(kReport), format_reports_table({{{"\x1b[2J\nname", {}}}}), format_reports_json({{kReport}})})
    for (const char c : text) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << text;
  EXPECT_NE(format_report(kReport).find("\\x1b]0;owned\\x07\\x0a\\xff\\xc2\\x9b"), std::string::npos);
}

TEST(Report, LongWordsAreCutAndLongTextsBounded) {
  Report report{"x", {{Severity::kLoss, std::string(500, 'o'), std::string(1 << 20, 't'), ""}}};
  const auto text = format_report(report);
  EXPECT_LT(text.size(), 10000u);
  for (const auto& line : {text.substr(0, text.find('\n'))}) EXPECT_LE(line.size(), 80u);
}

TEST(Report, JsonIsRead) {
  const auto json = nlohmann::json::parse(format_reports_json({{kReport}}), nullptr, false);
  ASSERT_FALSE(json.is_discarded());
  EXPECT_EQ(json[0]["domain"], "web1");
  EXPECT_EQ(json[0]["verdict"], "blocked");
  EXPECT_EQ(json[0]["findings"][0]["severity"], "block");
  EXPECT_EQ(json[0]["findings"].size(), 3u);
}

TEST(Report, DowntimeIsThere) {
  Report report{"web1", {}};
  EXPECT_EQ(format_reports_json({{report}}).find("downtime"), std::string::npos);
  report.downtime = {1200, 1500, 80, 1700};
  EXPECT_NE(format_report(report).find("off after 1200 ms"), std::string::npos) << format_report(report);
  auto json = nlohmann::json::parse(format_reports_json({{report}}), nullptr, false)[0]["downtime"];
  EXPECT_EQ(json, (nlohmann::json{
                      {"machine_off_ms", 1200}, {"init_runs_ms", 1500}, {"port", 80}, {"port_answers_ms", 1700}}));
  report.downtime->port_answers_ms.reset();
  EXPECT_NE(format_report(report).find("port 80 has not"), std::string::npos) << format_report(report);
  json = nlohmann::json::parse(format_reports_json({{report}}), nullptr, false)[0]["downtime"];
  EXPECT_TRUE(json["port_answers_ms"].is_null());
}

TEST(Report, ExitCodeIsOfTheWorst) {
  EXPECT_EQ(exit_code({{{"a", {}}}}), 0);
  const std::vector<Report> reports = {{"a", {{Severity::kChange, "", "", ""}}},
                                       {"b", {{Severity::kLoss, "", "", ""}}}};
  EXPECT_EQ(exit_code(reports), 2);
  EXPECT_EQ(exit_code({{kReport}}), 3);
  const auto table = format_reports_table(reports);
  EXPECT_NE(table.find("a       ready"), std::string::npos) << table;
  EXPECT_NE(table.find("b       with losses"), std::string::npos) << table;
}

}  // namespace
}  // namespace virtuserns::convert
