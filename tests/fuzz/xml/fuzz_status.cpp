// A status file: no crash, and what is read is what is written back.
#include <cstdio>
#include <cstdlib>

#include "xml/status.h"

using namespace virtuserns;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto status = xml::parse_status({reinterpret_cast<const char*>(data), size});
  if (!status) return 0;
  const auto printed = xml::format_status(*status);
  const auto again = xml::parse_status(printed);
  if (again && xml::format_status(*again) == printed) return 0;
  std::fprintf(stderr, "%s%s", printed.c_str(),
               again ? xml::format_status(*again).c_str() : again.error().text.c_str());
  std::abort();
}
