// The first bytes of an image, and what a child says that a hostile archive has taken over: all that is read of strangers here.
#include <cstdint>
#include <string>

#include "tools/image/detect.h"
#include "tools/image/tally.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns::image;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto start = text.substr(0, kStartBytes);
  const auto found = detect(start, "");
  if (!found) __builtin_trap();
  // What it is by its content, it may be said to be.
  const auto again = detect(start, found->format);
  if (!again || again->format != found->format) __builtin_trap();
  const auto report = Tally::decode(text);
  if (report && report->findings.size() > 64) __builtin_trap();
  return 0;
}
