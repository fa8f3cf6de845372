#include "tools/image/tally.h"

#include "conf/base/text.h"
#include "conf/base/xdr.h"

namespace virtuserns::image {
namespace {

constexpr std::size_t kKinds = 64, kExamples = 3, kExampleBytes = 100;

struct LeftOut {
  xdr::Text<512> what;
  std::uint64_t count = 0;
  xdr::Text<1024> examples;
};
struct Answer {
  std::uint64_t entries = 0, bytes = 0;
  xdr::List<LeftOut, kKinds> left_out;
};

}  // namespace

void Tally::leave_out(const std::string& what, const std::string& path) {
  auto name = printable(what, 200);
  if (!left_.contains(name) && left_.size() + 1 >= kKinds) name = "other thing";
  auto& left = left_[name];
  if (++left.count <= kExamples)
    left.examples += (left.examples.empty() ? "" : ", ") + printable(path, kExampleBytes);
}

std::string Tally::encode() const {
  Answer answer{entries, bytes, {}};
  for (const auto& [what, left] : left_) answer.left_out.push_back({what, left.count, left.examples});
  const auto encoded = xdr::encode(answer);
  return {encoded.begin(), encoded.end()};
}

Result<Report> Tally::decode(const std::string& answer) {
  const std::vector<std::uint8_t> bytes(answer.begin(), answer.end());
  const auto said = TRY(xdr::decode_exact<Answer>(bytes, 1024 * 1024), "the child's answer");
  Report report;
  report.entries = said.entries;
  report.bytes = said.bytes;
  for (const auto& left : said.left_out)
    report.findings.push_back(
        {convert::Severity::kChange, left.what, std::to_string(left.count) + " left out: " + left.examples, "", ""});
  return report;
}

}  // namespace virtuserns::image
