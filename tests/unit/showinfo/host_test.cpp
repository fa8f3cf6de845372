// Who is who on a host: parsers of foreign text, and this process as the kernel shows it.
#include <gtest/gtest.h>

#include <unistd.h>

#include "driver/kernel/credentials.h"
#include "tests/unit/showinfo/sample_host.h"
#include "tools/showinfo/access.h"
#include "tools/showinfo/mounts.h"

namespace virtuserns::showinfo {
namespace {

using namespace test;

constexpr const char* kStatus =
    "Name:\ta)\\nUid:\t0 0 0 0\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t91\nPid:\t91\nPPid:\t4\n"
    "Uid:\t2000000\t2000033\t2000001\t2000033\nGid:\t5\t6\t7\t8\nGroups:\t4 24 4294967294 \nNSpid:\t91\t1\n"
    "VmSize:\t  100 kB\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t2\n";

TEST(Credentials, AreRead) {
  const auto who = kernel::parse_credentials(kStatus);
  ASSERT_TRUE(who);
  EXPECT_EQ(who->name, "a)\\nUid:\t0 0 0 0");
  EXPECT_EQ(who->uid, (kernel::IdSet{2000000, 2000033, 2000001, 2000033}));
  EXPECT_EQ(who->gid.filesystem, 8u);
  EXPECT_EQ(who->groups, (std::vector<std::uint32_t>{4, 24, 4294967294U}));
  EXPECT_EQ(who->parent, 4);
  EXPECT_EQ(who->effective, 1u);
  EXPECT_EQ(who->permitted, 0x1ffffffffffU);
  EXPECT_EQ(who->seccomp_mode, 2);
  EXPECT_TRUE(who->has_no_new_privileges && who->has_memory);
  EXPECT_EQ(who->ns_pids.back(), 1);
}

TEST(Credentials, BrokenTextIsNone) {
  const std::string text = kStatus;
  for (const auto& [from, to] : {std::pair<std::string, std::string>{"Uid:\t2000000\t", "Uid:\t-1\t"},
                                 {"Gid:\t5\t6", "Gid:\t5"},
                                 {"CapEff:\t0", "CapEff:\tg"},
                                 {"Groups:\t4", "Groups:\tx"},
                                 {"Name:", "Names"},
                                 {"State:\tS (sleeping)", "State:\t"}}) {
    auto broken = text;
    broken.replace(broken.find(from), from.size(), to);
    EXPECT_FALSE(kernel::parse_credentials(broken)) << to;
  }
  EXPECT_FALSE(kernel::parse_credentials(""));
  EXPECT_FALSE(kernel::parse_credentials("Name:\tx"));
  EXPECT_FALSE(kernel::parse_credentials("Name:\tx\nState:\tR\n"));
}

TEST(Host, SeesThisProcess) {
  const auto host = read_host();
  ASSERT_TRUE(host) << host.error().text;
  const auto* self = host->find(::getpid());
  ASSERT_NE(self, nullptr);
  EXPECT_EQ(self->user_ns, host->own);
  EXPECT_EQ(self->who.uid.effective, ::geteuid());
  EXPECT_EQ(host->chain(host->own), std::vector<NamespaceId>{host->own});
  EXPECT_TRUE(host->namespaces.at(host->own).maps);
  EXPECT_EQ(host->find(0), nullptr);
  EXPECT_TRUE(find_subject(*host, std::to_string(::getpid())));
  const auto missing = find_subject(*host, "no\x1bsuch");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().text.find('\x1b'), std::string::npos);
}

TEST(Host, ChainsEndAtTheCallersOwn) {
  auto host = make_host();
  EXPECT_EQ(host.chain(kInner), (std::vector<NamespaceId>{kInner, kAnna1, kHost}));
  EXPECT_TRUE(host.chain(7).empty());
  host.namespaces[301].parent = 302;
  host.namespaces[302].parent = 301;  // the kernel has no such thing; a reader must end all the same
  EXPECT_TRUE(host.chain(301).empty());
}

TEST(Host, Mark) {
  const std::string uuid = "0f0e0d0c-0b0a-4908-8706-050403020100";
  EXPECT_EQ(parse_mark(std::string("PATH=/bin\0VIRTUSERNS_RUN=/run/x/", 32) + uuid + std::string("\0Z=1", 4)), uuid);
  EXPECT_FALSE(parse_mark("VIRTUSERNS_RUN=/run/x/web"));
  EXPECT_FALSE(parse_mark("X=VIRTUSERNS_RUN=/run/" + uuid));
  EXPECT_FALSE(parse_mark(""));
}

TEST(Host, OwnMapIsInItsOwnIds) {
  const auto maps = seen_from_inside({{{0, 2000000, 10}}, {{5, 7, 1}}});
  EXPECT_EQ(maps.uid, (IdMapLines{{0, 0, 10}}));
  EXPECT_EQ(maps.gid, (IdMapLines{{5, 5, 1}}));
}

TEST(Mounts, AreParsed) {
  const auto mounts = parse_mountinfo(
      "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "24 23 0:5 / /proc ro,nosuid,nodev,noexec master:2 propagate_from:1 - proc proc rw\n"
      "25 23 0:6 /a\\040b /mnt rw - tmpfs  ro,size=1k\n"
      "nonsense\n26 x 0:6 / / rw - a b c\n27 1 0:6 / /x rw a b\n");
  ASSERT_EQ(mounts.size(), 3u);
  EXPECT_TRUE(mounts[1].is_read_only && mounts[1].has_nodev && mounts[1].has_noexec);
  EXPECT_FALSE(mounts[1].is_read_only_filesystem);
  EXPECT_TRUE(mounts[2].is_read_only_filesystem);
  EXPECT_EQ(mounts[2].root, "/a\\040b");
}

TEST(Mounts, WholeViews) {
  const std::string root = "1 0 8:1 / / rw - ext4 x rw\n";
  const auto is_whole = [&](const std::string& lines) {
    return has_whole_view(parse_mountinfo(root + lines), "proc");
  };
  const std::string proc = "2 1 0:5 / /proc rw - proc proc rw\n";
  EXPECT_TRUE(is_whole(proc));
  EXPECT_TRUE(is_whole(proc + "3 2 0:6 / /proc/sys/fs/binfmt_misc rw - binfmt_misc x rw\n"));
  EXPECT_FALSE(is_whole(proc + "3 2 0:6 /null /proc/kcore rw - devtmpfs x rw\n"));
  EXPECT_TRUE(
      is_whole(proc + "3 2 0:6 /null /proc/kcore rw - devtmpfs x rw\n4 1 0:7 / /srv/proc rw - proc proc rw\n"));
  EXPECT_FALSE(is_whole("2 1 0:5 /sys /proc rw - proc proc rw\n"));
  EXPECT_FALSE(is_whole("2 1 0:5 / /proc ro - proc proc rw\n"));
  EXPECT_FALSE(is_whole(""));
}

TEST(Devices, ListsOfControlGroups) {
  const char* list = "c 1:3 rwm\nc 136:* rw\nb *:* m\njunk\nc 1 rwm\n";
  EXPECT_TRUE(is_in_device_list(list, 'c', 1, 3, "rw"));
  EXPECT_TRUE(is_in_device_list(list, 'c', 136, 77, "w"));
  EXPECT_FALSE(is_in_device_list(list, 'b', 8, 0, "r"));
  EXPECT_FALSE(is_in_device_list(list, 'c', 1, 5, "r"));
  EXPECT_TRUE(is_in_device_list("a *:* rwm\n", 'b', 8, 0, "rw"));
}

TEST(Acls, AreBoundedAndLittleEndian) {
  const std::string head("\2\0\0\0", 4), user("\2\0\4\0\xe8\3\0\0", 8);
  const auto acl = parse_acl(head + user);
  ASSERT_TRUE(acl);
  EXPECT_EQ(*acl, (Acl{{AclEntry::kUser, 4, 1000}}));
  EXPECT_FALSE(parse_acl(""));
  EXPECT_FALSE(parse_acl(std::string("\1\0\0\0", 4) + user));
  EXPECT_FALSE(parse_acl(head + user.substr(1)));
}

}  // namespace
}  // namespace virtuserns::showinfo
