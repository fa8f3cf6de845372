#include "tools/showinfo/look.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <algorithm>
#include <tuple>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/facts_text.h"
#include "driver/kernel/namespaces.h"
#include "tools/showinfo/walk.h"

namespace virtuserns::showinfo {

namespace {

constexpr std::size_t kMaxMountinfo = 32 * 1024 * 1024, kMaxSmall = 64 * 1024;

std::string proc_of(pid_t pid, const char* name) { return "/proc/" + std::to_string(pid) + "/" + name; }

std::optional<int> read_setting(const char* path) {
  const auto text = read_kernel_file(path, kMaxSmall);
  return text ? parse_number<int>(trim(*text)) : std::nullopt;
}

Error refuse_hidden(const Process& process) {
  return fail(VIR_ERR_OPERATION_DENIED, "the user namespace of process " + std::to_string(process.pid) +
                                            " is not visible to this user; run this as root");
}

// The user namespace that owns the process's namespace `name`.
std::optional<NamespaceId> owner_of(const DirFd& proc, pid_t pid, const char* name) {
  const auto ns = kernel::open_namespace(proc, pid, name);
  const auto owner = ns ? kernel::owner_of_namespace(*ns) : Result<NsFd>(ns.error());
  const auto id = owner ? kernel::id_of_namespace(*owner) : Result<std::uint64_t>(owner.error());
  return id ? std::optional(*id) : std::nullopt;
}

// Whether `below` is `above` or in it.
std::optional<bool> is_pid_namespace_in(const DirFd& proc, pid_t below, pid_t above) {
  const auto top = kernel::open_namespace(proc, above, "pid");
  auto current = kernel::open_namespace(proc, below, "pid");
  const auto wanted = top ? kernel::id_of_namespace(*top) : Result<std::uint64_t>(top.error());
  while (current && wanted) {
    const auto id = kernel::id_of_namespace(*current);
    if (!id) break;
    if (*id == *wanted) return true;
    auto parent = kernel::parent_of_namespace(*current);
    if (!parent) return false;
    current = std::move(parent);
  }
  return std::nullopt;
}

std::string label_of(pid_t pid) {
  const auto text = read_kernel_file(proc_of(pid, "attr/current"), kMaxSmall);
  if (!text) return "";
  const auto label = trim(std::string_view(*text).substr(0, text->find('\0')));
  return label.starts_with("unconfined") ? "" : std::string(label);
}

// How many filters of devices the group at `directory` is under; -1: it is not said.
int count_device_filters(const std::string& directory) {
  const Fd group(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!group) return -1;
  bpf_attr query{};
  query.query.target_fd = static_cast<std::uint32_t>(group.get());
  query.query.attach_type = BPF_CGROUP_DEVICE;
  query.query.query_flags = BPF_F_QUERY_EFFECTIVE;
  return ::syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) == 0 ? static_cast<int>(query.query.prog_cnt) : -1;
}

void look_at_device(const Process& process, unsigned wanted, OpenFacts& facts) {
  const auto mounts = read_kernel_file("/proc/self/mountinfo", kMaxMountinfo);
  const auto groups = read_kernel_file(proc_of(process.pid, "cgroup"), kMaxSmall);
  if (!mounts || !groups) {
    facts.has_unread_device_filter = true;
    return;
  }
  auto hierarchies = kernel::parse_cgroup_mounts(*mounts);
  kernel::set_own_groups(*groups, hierarchies);
  const std::string access = std::string(wanted & kRead ? "r" : "") + (wanted & kWrite ? "w" : "");
  for (const auto& hierarchy : hierarchies) {
    const std::string directory = hierarchy.mount + hierarchy.own_path;
    const auto& names = hierarchy.controllers;
    if (hierarchy.is_v2) {
      facts.has_unread_device_filter |= count_device_filters(directory) != 0;
    } else if (std::find(names.begin(), names.end(), "devices") != names.end()) {
      const auto list = read_kernel_file(directory + "/devices.list", kMaxSmall);
      if (list)
        facts.is_device_allowed = is_in_device_list(*list, S_ISBLK(facts.target->mode) ? 'b' : 'c',
                                                    facts.target->major, facts.target->minor, access);
      else
        facts.has_unread_device_filter = true;
    }
  }
}

// In the network namespace of the process: this file is of whoever reads it.
Result<std::uint32_t> read_first_free_port(const DirFd& proc, pid_t pid) {
  constexpr const char* kSetting = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
  const NsFd theirs = TRY(kernel::open_namespace(proc, pid, "net"));
  const NsFd ours(::openat(proc.get(), "self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!ours) return sys_fail("open own network namespace");
  const bool is_ours = TRY(kernel::id_of_namespace(ours)) == TRY(kernel::id_of_namespace(theirs));
  if (!is_ours) TRY(kernel::enter_namespace(theirs, CLONE_NEWNET));
  const auto value = read_setting(kSetting);
  if (!is_ours) TRY(kernel::enter_namespace(ours, CLONE_NEWNET));
  if (!value) return fail(VIR_ERR_OPERATION_FAILED, std::string("read ") + kSetting);
  return static_cast<std::uint32_t>(*value);
}

// The files in /proc of a process that is not dumpable belong to root of the namespace that its program was run in, and not to it
// (proc(5)). When that is itself the process's uid, nothing tells the two apart.
std::optional<NamespaceId> find_undumpable(const Host& host, const Process& process) {
  struct stat st {};
  if (::stat(proc_of(process.pid, "status").c_str(), &st) != 0) return NamespaceId{0};
  if (st.st_uid == process.who.uid.effective) return std::nullopt;
  for (const auto id : host.chain(process.user_ns.value_or(0))) {
    const auto& maps = host.namespaces.at(id).maps;
    if (!maps) continue;
    const auto seen = id == host.own ? seen_from_inside(*maps) : *maps;
    if (to_host(seen.uid, 0) == st.st_uid) return id;
  }
  return NamespaceId{0};
}

}  // namespace

Result<Subject> read_subject(const Host& host, const Process& process) {
  if (!process.user_ns || host.chain(*process.user_ns).empty()) return refuse_hidden(process);
  const auto& ns = host.namespaces.at(*process.user_ns);
  Subject subject{process.pid, process.who, *process.user_ns, {}, label_of(process.pid)};
  if (ns.maps) subject.maps = *process.user_ns == host.own ? seen_from_inside(*ns.maps) : *ns.maps;
  return subject;
}

Result<OpenFacts> look_at_path(const Process& process, NamespaceId first_ns, const std::string& path,
                               unsigned wanted) {
  const DirFd root(::open(proc_of(process.pid, "root").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return sys_fail("root of process " + std::to_string(process.pid));
  const auto mounts =
      parse_mountinfo(TRY(read_kernel_file(proc_of(process.pid, "mountinfo"), kMaxMountinfo), "its mounts"));
  auto facts = TRY(walk_path(root, mounts, path));
  facts.first_ns = first_ns;
  facts.is_log_restricted = read_setting("/proc/sys/kernel/dmesg_restrict").value_or(0) > 0;
  facts.has_protected_links = read_setting("/proc/sys/fs/protected_symlinks").value_or(0) > 0;
  if (facts.target && (S_ISCHR(facts.target->mode) || S_ISBLK(facts.target->mode)))
    look_at_device(process, wanted, facts);
  return facts;
}

Result<SignalFacts> look_at_target(const Host& host, const Process& process, const Process& target) {
  const DirFd proc = TRY(open_directory("/proc"));
  SignalFacts facts{TRY(read_subject(host, target)), is_pid_namespace_in(proc, target.pid, process.pid)};
  const bool is_init = !target.who.ns_pids.empty() && target.who.ns_pids.back() == 1;
  facts.is_init_of_same =
      is_init && is_pid_namespace_in(proc, process.pid, target.pid) == true && facts.is_in_sight == true;
  return facts;
}

Result<TraceFacts> look_at_tracee(const Host& host, const Process& process, const Process& target) {
  TraceFacts facts{TRY(look_at_target(host, process, target))};
  facts.undumpable_in = find_undumpable(host, target);
  facts.yama_scope = read_setting("/proc/sys/kernel/yama/ptrace_scope");
  const Process* ancestor = &target;
  for (std::size_t i = 0; ancestor && i <= host.processes.size() && !facts.is_descendant; ++i) {
    facts.is_descendant = ancestor->who.parent == process.pid;
    ancestor = host.find(ancestor->who.parent);
  }
  return facts;
}

Result<MountFacts> look_at_mounting(const Host& host, const Process& process, const std::string& type) {
  const DirFd proc = TRY(open_directory("/proc"));
  MountFacts facts;
  facts.type = type;
  facts.first_ns = host.own;
  facts.mount_owner = owner_of(proc, process.pid, "mnt");
  facts.net_owner = owner_of(proc, process.pid, "net");
  facts.pid_owner = owner_of(proc, process.pid, "pid");
  facts.ipc_owner = owner_of(proc, process.pid, "ipc");
  facts.cgroup_owner = owner_of(proc, process.pid, "cgroup");
  utsname machine{};
  ::uname(&machine);
  std::tie(facts.kernel_major, facts.kernel_minor) = kernel::parse_kernel_release(machine.release);
  const auto known = read_kernel_file("/proc/filesystems", kMaxSmall);
  facts.is_known = false;
  if (known)
    for (const auto line : split(*known, '\n'))
      facts.is_known |= trim(line.substr(std::min(line.size(), line.find('\t') + 1))) == type;
  if (const auto text = read_kernel_file(proc_of(process.pid, "mountinfo"), kMaxMountinfo))
    facts.has_whole_view = has_whole_view(parse_mountinfo(*text), type);
  return facts;
}

Result<BindFacts> look_at_binding(const Process& process, std::uint32_t port) {
  const DirFd proc = TRY(open_directory("/proc"));
  BindFacts facts;
  facts.port = port;
  facts.net_owner = owner_of(proc, process.pid, "net");
  if (const auto first = read_first_free_port(proc, process.pid)) facts.first_free_port = *first;
  return facts;
}

}  // namespace virtuserns::showinfo
