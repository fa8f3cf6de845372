// All rules over a tree in which every file that they know holds the input. Edits are staged and never committed.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/support/temp_dir.h"
#include "tools/convert/cards.h"
#include "tools/convert/fstab.h"
#include "tools/convert/nics.h"
#include "tools/convert/report.h"
#include "tools/convert/rules.h"

namespace {

using namespace virtuserns;
using namespace virtuserns::convert;

constexpr const char* kFiles[] = {"etc/os-release",
                                  "etc/fstab",
                                  "etc/crypttab",
                                  "etc/inittab",
                                  "etc/rc.conf",
                                  "etc/modules",
                                  "etc/modprobe.d/x.conf",
                                  "etc/sysctl.d/x.conf",
                                  "etc/rsyslog.conf",
                                  "etc/machine-id",
                                  "etc/selinux/config",
                                  "etc/dnf/dnf.conf",
                                  "etc/chrony.conf",
                                  "etc/exports",
                                  "etc/network/interfaces",
                                  "etc/netplan/x.yaml",
                                  "etc/systemd/network/x.network",
                                  "etc/systemd/journald.conf",
                                  "etc/systemd/system/x.mount",
                                  "etc/NetworkManager/system-connections/x",
                                  "etc/sysconfig/network-scripts/ifcfg-x",
                                  "etc/udev/rules.d/70-persistent-net.rules",
                                  "etc/default/grub"};

class Tree {
 public:
  explicit Tree(const char* init) {
    for (const auto* name : kFiles) std::filesystem::create_directories((root() / name).parent_path());
    std::filesystem::create_directories(root() / "sbin");
    std::filesystem::create_directories(root() / "etc/runlevels/boot");
    std::ofstream(root() / "sbin" / init);
    std::ofstream(root() / "sbin/openrc");
    (void)!::symlink(init, (root() / "sbin/init").c_str());
  }
  void run(std::string_view text) const {
    for (const auto* name : kFiles)
      std::ofstream(root() / name, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
    const DirFd handle(::open(root().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    GuestOptions options;
    options.machine_id = MachineId::kReset;
    options.nics = {{MacAddress{{0x52, 0x54, 0, 0, 0, 1}}, "eth0", MacAddress{{0x52, 0x54, 0, 0, 0, 2}}}};
    const Report report{"x", plan_guest(handle, options)};
    for (const char c : format_report(report) + format_reports_json({&report, 1}))
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n') __builtin_trap();
    std::vector<Finding> findings;
    DirFd again(::open(root().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const GuestFiles files(std::move(again));
    (void)find_shares(files);
    for (const auto& nic : name_nics(files, {{options.nics[0].mac, {}, ""}, {MacAddress{{2}}, {}, ""}}, findings))
      if (!is_link_name(nic.guest_dev)) __builtin_trap();
  }

 private:
  [[nodiscard]] std::filesystem::path root() const { return dir_.path(); }
  test::TempDir dir_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const Tree kSystemd("systemd"), kOpenRc("busybox");
  kSystemd.run(text);
  kOpenRc.run(text);
  return 0;
}
