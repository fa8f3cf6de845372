// A plan with every step in it, for codec, describe and fuzz tests. It is never carried out.
#pragma once

#include "driver/controller/plan.h"

namespace virtuserns::test {

inline LaunchPlan make_full_plan() {
  LaunchPlan plan;
  plan.name = "web";
  plan.uuid[0] = 1;
  plan.host_uid = plan.host_gid = 2000000;
  plan.socket_path = "/run/virtuserns/web.sock";
  plan.exit_record_path = "/run/virtuserns/web.exit";
  plan.stage_path = "/run/virtuserns/web.stage";
  plan.consoles = {{0, "/var/log/web.log", true}, {1, "", true}};
  plan.before = {
      CgroupStep{"/sys/fs/cgroup/memory",
                 false,
                 {"memory"},
                 "machine/web",
                 {{"memory.limit_in_bytes", "1"}},
                 std::nullopt,
                 false,
                 false,
                 "machine"},
      SourceStep{1, "/srv/web", true, false, SourceUser{1001, 1002}},
      ImageHelpersStep{"/usr/libexec/image", "/usr/bin/storage", std::vector<std::uint8_t>(16)},
      ImageSourceStep{2, false, {{"/srv/web.qcow2", "qcow2"}, {"/srv/base.vdi", "vdi"}}, 3, 512, 1024, "@", true},
      DeviceSourceStep{3, "/dev/null", false},
      OverlaySourceStep{4,
                        {"/srv/own", OwnerShift::kIdmappedMount},
                        {{"/srv/top", OwnerShift::kAlreadyShifted}, {"/srv/base", OwnerShift::kIdmappedMount}},
                        true}};
  plan.from_parent = {IdMapStep{{{{0, 2000000, 65536}}, {{0, 2000000, 65536}}}},
                      RootStep{1, OwnerShift::kIdmappedMount, true},
                      BindStep{2, "/data", OwnerShift::kAlreadyShifted, true},
                      InnerBindStep{"/data", "/mnt", false},
                      TmpfsStep{"/tmp", 1048576, 01777, false},
                      DevStep{65536, 2, 5},
                      DeviceNodeStep{3, "/dev/null"},
                      ProcStep{{"/proc/kcore"}, {"/proc/sys"}, {"/proc/sys/net"}},
                      SysStep{{"/sys/firmware"}},
                      CgroupMountStep{},
                      MqueueStep{},
                      VethStep{"vnet%d", "eth0", {2, 0, 0, 0, 0, 1}, "br0", 1400, true},
                      MacvlanStep{"eth9", "eth1", "bridge", {2, 0, 0, 0, 0, 2}},
                      MoveLinkStep{"eth8", "eth2"},
                      LentLinkStep{"/run/broker", "eth4", {2, 0, 0, 0, 0, 4}, "br0", 1400, true},
                      UserLinkStep{"eth3",
                                   {2, 0, 0, 0, 0, 3},
                                   "eth0",
                                   1400,
                                   true,
                                   "10.0.2.15",
                                   "10.0.2.2",
                                   24,
                                   "fd00::2",
                                   "fd00::1",
                                   {{false, "", 8080, 80}, {true, "192.0.2.1%eth0", 53, 53}},
                                   "/var/log/passt.log"}};
  plan.inside = {LinkUpStep{"lo"},
                 AddressStep{"eth0", {192, 0, 2, 2}, 24, {}},
                 RouteStep{"", {0, 0, 0, 0}, 0, {192, 0, 2, 1}, 100},
                 HostnameStep{"web"},
                 PivotStep{},
                 ConsoleStep{},
                 RlimitStep{7, 1024, 4096},
                 PersonalityStep{8},
                 CapabilitiesStep{0xff, true},
                 UserStep{"+0", "+0"},
                 ApparmorStep{"virtuserns-container"},
                 SeccompStep{{6, 0, 0, 0, 0, 0, 0xff, 0x7f}, true, {{0xc000003e, 321, "bpf"}}},
                 ExecStep{"/sbin/init", {"/sbin/init"}, {"container=lxc-libvirt"}, "", 0}};
  return plan;
}

}  // namespace virtuserns::test
