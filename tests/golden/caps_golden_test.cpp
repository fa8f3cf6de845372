// Capabilities of an invented machine, compared with tests/golden/caps/*.xml. UPDATE_GOLDEN=1 rewrites them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "xml/caps.h"

namespace virtuserns {
namespace {

void expect_golden(const std::string& name, const std::string& printed) {
  const std::string path = std::string(GOLDEN_DIR) + "/caps/" + name;
  if (std::getenv("UPDATE_GOLDEN")) std::ofstream(path, std::ios::binary) << printed;
  std::ifstream in(path, std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), printed);
}

Capabilities two_cells() {
  Capabilities caps;
  caps.node.arch = "x86_64";
  caps.node.host_uuid = *parse_uuid("4208a7b5-1d39-49ba-9539-d30ede25391f");
  caps.node.page_sizes_kib = {4, 2048, 1048576};
  for (int i = 0; i < 2; ++i) {
    NumaCell cell;
    cell.id = i;
    cell.memory_kib = 8388608;
    cell.pages = {{4, 2097152}, {2048, 16}};
    cell.distances = {{i, 10}, {1 - i, 21}};
    cell.cpus = {{2 * i, i, 0, 0, std::to_string(2 * i)}, {2 * i + 1, i, 0, 1, std::to_string(2 * i + 1)}};
    caps.node.cells.push_back(cell);
  }
  caps.guests = {{"x86_64", 64, "/usr/libexec/virtuserns/virtuserns-controller"},
                 {"i686", 32, "/usr/libexec/virtuserns/virtuserns-controller"}};
  caps.secmodels = {"none"};
  return caps;
}

TEST(CapsGolden, Host) { expect_golden("capabilities.xml", xml::format_capabilities(two_cells())); }

TEST(CapsGolden, HostWithNothingKnown) {
  Capabilities caps;
  caps.node.arch = "aarch64";
  expect_golden("capabilities-bare.xml", xml::format_capabilities(caps));
}

TEST(CapsGolden, Domain) {
  DomainCapabilities caps;
  caps.path = "/usr/libexec/virtuserns/virtuserns-controller";
  caps.arch = "x86_64";
  caps.max_vcpus = 2;
  caps.filesystem_driver_types = {"path", "loop", "nbd"};
  expect_golden("domaincapabilities.xml", xml::format_domain_capabilities(caps));
}

}  // namespace
}  // namespace virtuserns
