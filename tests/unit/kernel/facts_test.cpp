// Facts about a host, from fake trees of /proc and /sys.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "driver/kernel/facts_text.h"
#include "driver/kernel/node_facts.h"
#include "tests/support/temp_dir.h"

namespace virtuserns {
namespace {

constexpr const char* kHybrid =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
    "42 31 0:32 /part /srv/part rw,relatime - cgroup cgroup rw,memory\n"
    "43 31 0:32 / /mnt/a\\040copy rw,relatime - cgroup cgroup rw,memory\n";

class Tree {
 public:
  void write(const std::string& name, const std::string& text) {
    const auto path = std::filesystem::path(temp_.path()) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  [[nodiscard]] Result<HostFacts> read() const {
    return read_host_facts(temp_.path() + "/proc", temp_.path() + "/sys");
  }

 private:
  test::TempDir temp_;
};

TEST(Facts, HybridHost) {
  Tree tree;
  tree.write("proc/self/mountinfo", kHybrid);
  tree.write("proc/self/cgroup", "4:memory:/daemon\n3:cpuacct,cpu:/\n1:name=systemd:/system.slice/x\n0::/y\n");
  tree.write("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n");
  tree.write("proc/sys/kernel/cap_last_cap", "40\n");
  tree.write("sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n");
  const auto facts = tree.read();
  ASSERT_TRUE(facts) << facts.error().text;
  EXPECT_EQ(facts->cgroup_mode, CgroupMode::kHybrid);
  ASSERT_EQ(facts->hierarchies.size(), 4u);
  EXPECT_EQ(facts->hierarchies[0].controllers, (std::vector<std::string>{"cpu", "cpuacct"}));
  EXPECT_EQ(facts->hierarchies[0].own_path, "/");
  EXPECT_EQ(facts->hierarchies[1].own_path, "/daemon");
  EXPECT_EQ(facts->hierarchies[2].controllers, (std::vector<std::string>{"name=systemd"}));
  EXPECT_EQ(facts->hierarchies[3].controllers, (std::vector<std::string>{"hugetlb"}));
  EXPECT_EQ(facts->hierarchies[3].own_path, "/y");
  EXPECT_EQ(facts->kernel_major, 6u);
  EXPECT_EQ(facts->kernel_minor, 1u);
  EXPECT_TRUE(facts->has_user_namespaces);
}

TEST(Facts, PureV1PureV2AndNone) {
  const auto modes = [](const std::string& mountinfo, const std::string& userns) {
    Tree tree;
    tree.write("proc/self/mountinfo", mountinfo);
    tree.write("proc/sys/kernel/osrelease", "5.4.0\n");
    tree.write("proc/sys/user/max_user_namespaces", userns);
    const auto facts = tree.read();
    return std::pair(facts->cgroup_mode, facts->has_user_namespaces);
  };
  EXPECT_EQ(modes("35 31 0:32 / /c/memory rw - cgroup cgroup rw,memory\n", "0\n"), std::pair(CgroupMode::kV1, false));
  EXPECT_EQ(modes("35 31 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "5\n"), std::pair(CgroupMode::kV2, true));
  EXPECT_EQ(modes("1 1 0:1 / / rw - ext4 /dev/a rw\n", ""), std::pair(CgroupMode::kNone, true));
}

TEST(Facts, NodeOfTwoCells) {
  Tree tree;
  tree.write("proc/self/mountinfo", "");
  tree.write("proc/sys/kernel/osrelease", "6.18.1");
  tree.write("proc/meminfo", "MemTotal:       8000000 kB\nMemFree: 1 kB\n");
  tree.write("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2394.374\n");
  tree.write("sys/devices/system/cpu/present", "0-8\n");
  tree.write("sys/devices/system/cpu/online", "0-7\n");
  for (int cpu = 0; cpu < 8; ++cpu) {
    const std::string topology = "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    tree.write(topology + "physical_package_id", std::to_string(cpu / 4));
    tree.write(topology + "core_id", std::to_string(cpu % 4 / 2));
    tree.write(topology + "thread_siblings_list",
               std::to_string(cpu / 2 * 2) + "-" + std::to_string(cpu / 2 * 2 + 1));
  }
  for (int node = 0; node < 2; ++node) {
    const std::string dir = "sys/devices/system/node/node" + std::to_string(node) + "/";
    tree.write(dir + "cpulist", node == 0 ? "0-3\n" : "4-8\n");
    tree.write(dir + "meminfo",
               "Node " + std::to_string(node) + " MemTotal:       4000000 kB\nNode 0 MemFree: 7 kB\n");
  }
  tree.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0");
  tree.write("sys/class/dmi/id/product_uuid", "c7a5fdbd-edaf-9455-926a-d65c16db1809\n");
  const auto facts = tree.read();
  ASSERT_TRUE(facts) << facts.error().text;
  const auto& node = facts->node;
  EXPECT_EQ(node.memory_kib, 8000000u);
  EXPECT_EQ(node.mhz, 2394u);
  EXPECT_EQ(node.cpus, 8u);
  EXPECT_EQ(node.nodes, 2u);
  EXPECT_EQ(node.sockets, 1u);
  EXPECT_EQ(node.cores, 2u);
  EXPECT_EQ(node.threads, 2u);
  ASSERT_EQ(node.cells.size(), 2u);
  EXPECT_EQ(node.cells[1].cpus.size(), 4u);  // the ninth is offline
  EXPECT_EQ(node.cells[1].cpus[0].siblings, "4-5");
  EXPECT_EQ(node.cells[0].free_kib, 7u);
  EXPECT_EQ(node.page_sizes_kib.back(), 2048u);
  EXPECT_TRUE(is_valid_uuid(node.host_uuid));
}

TEST(Facts, ThisMachine) {
  const auto facts = read_host_facts();
  ASSERT_TRUE(facts) << facts.error().text;
  EXPECT_GE(facts->kernel_major, 4u);
  EXPECT_GE(facts->node.cpus, 1u);
  EXPECT_GT(facts->node.memory_kib, 0u);
}

TEST(Facts, Cgroup2ThatNobodyHasMounted) {
  constexpr const char* kV1 = "30 1 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
  Tree tree;
  tree.write("proc/self/mountinfo", kV1);
  tree.write("proc/sys/kernel/osrelease", "6.1.0\n");
  auto facts = tree.read();
  ASSERT_TRUE(facts) << facts.error().text;
  EXPECT_FALSE(facts->has_unmounted_cgroup2);
  tree.write("proc/filesystems", "nodev\tcgroup\nnodev\tcgroup2\n");
  EXPECT_TRUE(tree.read()->has_unmounted_cgroup2);
  tree.write("proc/self/mountinfo", kV1 + std::string("31 1 0:27 / /mnt/mine rw - cgroup2 cgroup2 rw\n"));
  EXPECT_FALSE(tree.read()->has_unmounted_cgroup2);
}

TEST(Facts, OddTexts) {
  EXPECT_EQ(kernel::parse_kernel_release("7.0-rc1"), std::pair(7u, 0u));
  EXPECT_EQ(kernel::parse_kernel_release("nonsense"), std::pair(0u, 0u));
  EXPECT_TRUE(kernel::parse_cgroup_mounts("1 2 3 - cgroup\n- - - -\n\n").empty());
  EXPECT_EQ(kernel::parse_mhz("cpu MHz"), 0u);
  EXPECT_EQ(kernel::parse_meminfo("MemTotal\nMemTotal: x kB", "MemTotal"), 0u);
}

}  // namespace
}  // namespace virtuserns
