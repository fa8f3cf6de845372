// The capabilities (capabilities(7)) that processes of ours have when they are host root, each with its reason. Whatever is
// not named here is out of the bounding set from the first instruction on: of the daemon, and so of all that descends
// from it. Not in it, for instance: modules, raw i/o, kexec, the clock, the host's log, handles of files.
#pragma once

#include <linux/capability.h>

#include <cstdint>

namespace virtuserns {

[[nodiscard]] constexpr std::uint64_t capability_bit(int capability) { return std::uint64_t{1} << capability; }

// What a boot and everything that the stem is asked for take (driver/controller/stem.h).
[[nodiscard]] constexpr std::uint64_t privileges_of_stem() {
  std::uint64_t set = 0;
  for (const int capability : {
           CAP_SYS_ADMIN,     // mounts, namespaces, a user namespace where the host forbids them to users
           CAP_SYS_CHROOT,    // entering a mount namespace
           CAP_SETUID,        // the domain's host ids, and its maps
           CAP_SETGID,        // the same
           CAP_SETPCAP,       // giving the others up
           CAP_CHOWN,         // what lies in /dev and in delegated groups belongs to the domain
           CAP_FOWNER,        // modes of what belongs to it
           CAP_DAC_OVERRIDE,  // places of mounts in its tree, groups that it made, logs in folders of others
           CAP_MKNOD,         // device nodes of its own
           CAP_NET_ADMIN,     // links
           CAP_SYS_PTRACE,    // namespaces and program of init, by /proc
           CAP_KILL,          // its processes
           CAP_SYS_NICE,  // switching on cpuset of v2 in a group whose processes have capabilities that we have not
       })
    set |= capability_bit(capability);
  return set;
}

// Of a controller while it opens sources: what the kernel then does to the layers of an overlay it does with these (decision 0023).
[[nodiscard]] constexpr std::uint64_t privileges_of_controller() {
  return privileges_of_stem() | capability_bit(CAP_FSETID) |  // set-group-id bits of what is copied up
         capability_bit(CAP_SETFCAP);                         // file capabilities, the same
}

// Of the threads that decode what clients say, and only while they look at a source that a definition names: it may lie
// in a folder that only its owner may enter.
[[nodiscard]] constexpr std::uint64_t privileges_of_workers() { return capability_bit(CAP_DAC_READ_SEARCH); }

// Of the daemon as a whole. Its own part is small (the group of a socket, the mark of a controller in /proc, systemd, which
// asks for CAP_SYS_ADMIN); the rest is handed to controllers by exec.
[[nodiscard]] constexpr std::uint64_t privileges_of_daemon() {
  return privileges_of_controller() | privileges_of_workers();
}

}  // namespace virtuserns
