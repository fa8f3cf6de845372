// The tables of the talk, of facts that are written down here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "tests/unit/showinfo/sample_host.h"
#include "tools/showinfo/config.h"
#include "tools/showinfo/files.h"
#include "tools/showinfo/map.h"
#include "tools/showinfo/processes.h"
#include "tools/showinfo/tree.h"
#include "xml/domain.h"
#include "xml/lxc_native.h"

namespace virtuserns::showinfo {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<FileRow> kFiles = {{"sleeper-elsa@lxc-host.info", 1002, 1002, S_IFREG | 0644},
                                     {"sleeper-root@anna-c1.info", 2000000, 2000000, S_IFREG | 0644},
                                     {"a\x1b[2Jb\n\"", 0, 3001000, S_IFDIR | S_ISVTX | 0777}};

TEST(Tables, Files) {
  EXPECT_EQ(format_files(kFiles, SampleNames()),
            "fname                      uid     gid     mode\n"
            "sleeper-elsa@lxc-host.info elsa    elsa    -rw-r--r--\n"
            "sleeper-root@anna-c1.info  2000000 2000000 -rw-r--r--\n"
            "a\\x1b[2Jb\\x0a\"             root    3001000 drwxrwxrwt\n");
  const auto document = nlohmann::json::parse(format_files_json(kFiles, SampleNames()));
  EXPECT_EQ(document["files"].size(), 3u);
  EXPECT_EQ(document["files"][0]["user"], "elsa");
  EXPECT_EQ(document["files"][1]["mode"], "0644");
  EXPECT_EQ(document["files"][2]["fname"], "a\\x1b[2Jb\\x0a\"");
}

TEST(Tables, Modes) {
  EXPECT_EQ(format_mode(S_IFREG | 06755), "-rwsr-sr-x");
  EXPECT_EQ(format_mode(S_IFREG | 07000), "---S--S--T");
  EXPECT_EQ(format_mode(S_IFLNK | 0777), "lrwxrwxrwx");
  EXPECT_EQ(format_mode(S_IFCHR | 0620), "crw--w----");
}

TEST(Tables, FilesThatAreNot) {
  const auto found = read_files({"/nonexistent/x"});
  EXPECT_TRUE(found.rows.empty());
  EXPECT_THAT(found.problems, ElementsAre(HasSubstr("No such file")));
}

TEST(Tables, ProcessesAreGroupedAsOnTheSlide) {
  const auto host = make_host();
  const auto chosen = choose_processes(host, {"init", "mywait"});
  EXPECT_TRUE(chosen.missing.empty());
  EXPECT_EQ(format_processes(chosen.rows, SampleNames()),
            "command uid     gid     pid usersns\n"
            "mywait  anna    anna     50 4026531837\n"
            "init    2000000 2000000  70 101\n"
            "init    2100000 2100000  90 102\n"
            "init    3000000 3000000  60 103\n"
            "init    3100000 3100000  80 104\n");
}

TEST(Tables, ProcessesByNumberAndDomain) {
  const auto host = make_host();
  const auto numbers = [&](const std::vector<std::string>& wanted) {
    std::vector<pid_t> pids;
    for (const auto* row : choose_processes(host, wanted).rows) pids.push_back(row->pid);
    return pids;
  };
  EXPECT_THAT(numbers({"anna-c1"}), ElementsAre(70));
  EXPECT_THAT(numbers({"90", "50"}), ElementsAre(50, 90));
  EXPECT_THAT(numbers({}), ElementsAre(50, 70, 91, 90, 60, 80, 95));  // no thread of the kernel; the hidden one last
  EXPECT_THAT(choose_processes(host, {"4", "nobody"}).missing, ElementsAre("4", "nobody"));
  const auto text = format_processes(choose_processes(host, {"91", "95"}).rows, SampleNames());
  EXPECT_THAT(text, HasSubstr("x\\x1b[1m 2001007"));
  EXPECT_THAT(text, HasSubstr("95 -\n"));
  const auto document =
      nlohmann::json::parse(format_processes_json(host, choose_processes(host, {"95", "70"}).rows, SampleNames()));
  EXPECT_EQ(document["processes"][0]["domain"], "anna-c1");
  EXPECT_TRUE(document["processes"][1]["usersns"].is_null());
  EXPECT_EQ(document["hidden"], 1);
}

std::string domain_xml(const std::string& name, const std::string& idmap) {
  return "<domain type='lxc'><name>" + name + "</name><memory>65536</memory><os><type>exe</type></os>" + idmap +
         "</domain>";
}

std::string idmap_xml(const std::string& target) {
  return "<idmap><uid start='0' target='" + target + "' count='65535'/><gid start='0' target='" + target +
         "' count='65535'/></idmap>";
}

TEST(Tables, ConfigHasTheEightLinesAndTheyAreReadBack) {
  std::vector<DomainMap> maps;
  for (const auto& [name, target] :
       {std::pair{"anna-c1", "2000000"}, {"anna-c2", "2100000"}, {"elsa-c1", "3000000"}, {"elsa-c2", "3100000"}}) {
    auto map = read_domain_map(domain_xml(name, idmap_xml(target)));
    ASSERT_TRUE(map) << map.error().text;
    maps.push_back(std::move(*map));
    const auto config = format_config({maps.back()});
    const auto import =
        xml::parse_lxc_config("lxc.uts.name = " + std::string(name) + "\nlxc.rootfs.path = /srv/x\n" + config);
    ASSERT_TRUE(import) << import.error().text;
    EXPECT_EQ(import->def.idmap, maps.back().map);
    EXPECT_TRUE(import->ignored.empty());
  }
  EXPECT_EQ(format_config(maps),
            "# anna-c1\nlxc.id_map = u 0 2000000 65535\nlxc.id_map = g 0 2000000 65535\n"
            "# anna-c2\nlxc.id_map = u 0 2100000 65535\nlxc.id_map = g 0 2100000 65535\n"
            "# elsa-c1\nlxc.id_map = u 0 3000000 65535\nlxc.id_map = g 0 3000000 65535\n"
            "# elsa-c2\nlxc.id_map = u 0 3100000 65535\nlxc.id_map = g 0 3100000 65535\n");
  const auto document = nlohmann::json::parse(format_config_json(maps));
  EXPECT_EQ(document["domains"][3]["gid"][0]["target"], 3100000);
}

TEST(Tables, ConfigOfADomainWithoutHostIds) {
  const auto map = read_domain_map(domain_xml("web", ""));
  ASSERT_FALSE(map);
  EXPECT_THAT(map.error().text, HasSubstr("domain 'web' says no host ids"));
  EXPECT_FALSE(read_domain_map("<domain"));
}

TEST(Tables, Tree) {
  const auto host = make_host();
  EXPECT_EQ(format_tree(host, SampleNames()),
            "4026531837, owner root, 1 process, uid 0 0 4294967295, gid 0 0 4294967295\n"
            "|- 101 domain 'anna-c1', owner anna, 1 process, uid 0 2000000 65535, gid 0 2000000 65535\n"
            "|  `- 201, owner 2000000, 1 process, uid 0 2001000 100, gid 0 2001000 100\n"
            "|- 102, owner anna, 1 process, uid 0 2100000 65535, gid 0 2100000 65535\n"
            "|- 103, owner elsa, 1 process, uid 0 3000000 65535, gid 0 3000000 65535\n"
            "`- 104, owner elsa, 1 process, uid 0 3100000 65535, gid 0 3100000 65535\n");
  const auto document = nlohmann::json::parse(format_tree_json(host, SampleNames()));
  EXPECT_EQ(document["tree"]["children"][0]["domain"], "anna-c1");
  EXPECT_EQ(document["tree"]["children"][0]["children"][0]["uid_map"][0]["outside"], 2001000);
  EXPECT_EQ(document["tree"]["children"].size(), 4u);
}

TEST(Map, ThroughEveryLevel) {
  const auto host = make_host();
  IdClaims claims;
  claims.uid = {{{2000000, 1000000}, "user 'anna' (line 1 of /etc/subuid)", {}},
                {{3000000, 1000000}, "user 'elsa'", {}}};
  const auto answer = translate(host, *host.find(91), IdKind::kUid, From::kContainer, 7, claims);
  ASSERT_TRUE(answer);
  EXPECT_TRUE(answer->is_mapped);
  EXPECT_EQ(format_map({*answer}),
            "kind      id usersns    level owner\n"
            "uid        7 201        2\n"
            "uid     1007 101        1     domain 'anna-c1'\n"
            "uid  2001007 4026531837 here  user 'anna' (line 1 of /etc/subuid)\n");
  const auto back = translate(host, *host.find(91), IdKind::kUid, From::kHost, 2001007, claims);
  ASSERT_TRUE(back);
  EXPECT_EQ(format_map({*back}), format_map({*answer}));
  const auto outside = translate(host, *host.find(91), IdKind::kGid, From::kContainer, 100, claims);
  ASSERT_TRUE(outside);
  EXPECT_FALSE(outside->is_mapped);
  EXPECT_THAT(format_map({*outside}), HasSubstr("gid  not mapped 4026531837 here  nobody's"));
  const auto foreign = translate(host, *host.find(91), IdKind::kUid, From::kHost, 3000000, claims);
  ASSERT_TRUE(foreign);
  EXPECT_FALSE(foreign->is_mapped);
  EXPECT_EQ(nlohmann::json::parse(format_map_json({*foreign}))["ids"][0]["owners"][0], "user 'elsa'");
}

TEST(Map, OfWhatIsNotVisible) {
  auto host = make_host();
  EXPECT_FALSE(translate(host, *host.find(95), IdKind::kUid, From::kHost, 0, {}));
  // An ancestor in which nobody lives shows no map.
  host.namespaces[kAnna1].maps.reset();
  const auto answer = translate(host, *host.find(91), IdKind::kUid, From::kContainer, 7, {});
  ASSERT_TRUE(answer);
  EXPECT_TRUE(answer->is_mapped);
  EXPECT_THAT(format_map({*answer}), HasSubstr("not visible 101"));
}

}  // namespace
}  // namespace virtuserns::showinfo
