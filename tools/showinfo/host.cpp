#include "tools/showinfo/host.h"

#include <fcntl.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/uuid.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/namespaces.h"

namespace virtuserns::showinfo {

namespace {

constexpr std::size_t kMaxMap = 64 * 1024, kMaxWords = 128 * 1024, kMaxLevels = 33;
constexpr std::string_view kMark = "VIRTUSERNS_RUN=";
// While it boots, as much of its program's name as the kernel keeps; then as driver/controller/stem.h calls both.
constexpr std::string_view kBootingName = "virtuserns-cont", kControllerName = "virtuserns-ctl",
                           kStemName = "virtuserns-stem";

IdMapLines read_map(const DirFd& proc, pid_t pid, const char* name) {
  const auto text = read_kernel_file_at(proc, std::to_string(pid) + "/" + name, kMaxMap);
  auto lines = text ? parse_kernel_map(*text) : Result<IdMapLines>(text.error());
  return lines ? std::move(*lines) : IdMapLines();
}

class Reader {
 public:
  explicit Reader(DirFd proc) : proc_(std::move(proc)) {}

  Result<Host> read(const std::vector<std::string>& names) {
    const NsFd own(::openat(proc_.get(), "self/ns/user", O_RDONLY | O_CLOEXEC));
    if (!own) return sys_fail("open own user namespace");
    host_.own = TRY(kernel::id_of_namespace(own));
    host_.namespaces[host_.own] = {};
    for (const auto& name : names)
      if (const auto pid = parse_number<pid_t>(name)) add_process(*pid);
    std::sort(host_.processes.begin(), host_.processes.end(),
              [](const auto& a, const auto& b) { return a.pid < b.pid; });
    for (const auto& process : host_.processes) count(process);
    for (const auto& process : host_.processes) find_domain(process);
    for (auto& domain : host_.domains) find_children(domain);
    return std::move(host_);
  }

 private:
  // One that ends meanwhile was never there.
  void add_process(pid_t pid) {
    auto who = kernel::read_credentials(proc_, pid);
    if (!who) return;
    Process process{pid, std::move(*who), std::nullopt};
    if (const auto ns = kernel::open_namespace(proc_, pid, "user")) process.user_ns = add_namespace(*ns);
    host_.processes.push_back(std::move(process));
  }

  // And those that it lies in, up to our own.
  std::optional<NamespaceId> add_namespace(const NsFd& ns) {
    const auto id = kernel::id_of_namespace(ns);
    if (!id) return std::nullopt;
    auto child = *id;
    const auto* current = &ns;
    NsFd held;
    for (std::size_t level = 0; level < kMaxLevels; ++level) {
      auto& known = host_.namespaces[child];
      if (known.owner) break;
      if (const auto owner = kernel::owner_of_user_namespace(*current)) known.owner = *owner;
      if (child == host_.own) break;
      auto parent = kernel::parent_of_namespace(*current);
      if (!parent) break;
      const auto parent_id = kernel::id_of_namespace(*parent);
      if (!parent_id) break;
      known.parent = child = *parent_id;
      held = std::move(*parent);
      current = &held;
    }
    return *id;
  }

  void count(const Process& process) {
    if (is_of_the_kernel(process)) return;
    if (!process.user_ns) {
      host_.hidden_count += process.who.state == 'Z' ? 0 : 1;
      return;
    }
    auto& ns = host_.namespaces[*process.user_ns];
    ++ns.process_count;
    if (ns.first_process == 0) ns.first_process = process.pid;
    if (ns.maps) return;
    IdMaps maps{read_map(proc_, process.pid, "uid_map"), read_map(proc_, process.pid, "gid_map")};
    if (!maps.uid.empty() || !maps.gid.empty()) ns.maps = std::move(maps);
  }

  // The caller's own, or one that an ordinary user made for a controller, in which 0 is the user and nobody else. Whoever is
  // in a container may give its processes any name and words, and memory that never answers.
  [[nodiscard]] bool is_for_controllers(NamespaceId id) const {
    if (id == host_.own) return true;
    const auto& ns = host_.namespaces.at(id);
    if (ns.parent != host_.own || !ns.owner || !ns.maps) return false;
    const IdMapLine user{0, *ns.owner, 1};
    return std::find(ns.maps->uid.begin(), ns.maps->uid.end(), user) != ns.maps->uid.end();
  }

  void find_domain(const Process& process) {
    const auto& kind = process.who.name;
    if ((kind != kBootingName && kind != kControllerName) || !process.user_ns ||
        !is_for_controllers(*process.user_ns))
      return;
    const std::string place = std::to_string(process.pid);
    const auto words = read_kernel_file_at(proc_, place + "/cmdline", kMaxWords);
    if (!words) return;
    // Only root reads the environment of a controller; that of a user's daemon has the mark among its words as well.
    auto uuid = parse_mark(*words);
    if (const auto environment = read_kernel_file_at(proc_, place + "/environ", kMaxWords); !uuid && environment)
      uuid = parse_mark(*environment);
    if (!uuid) return;
    const auto arguments = split(*words, '\0');
    std::string name(arguments.size() > 1 ? arguments[1] : std::string_view());
    if (name.starts_with("./")) name.erase(0, 2);  // one that looks like an option: driver/userns/launch.cpp
    host_.domains.push_back(
        {std::move(name), *uuid, process.pid, process.who.uid.real, *process.user_ns, 0, std::nullopt});
  }

  // Init is the controller's child that is pid 1 in a namespace. Whose domain it is, its stem says: the controller has
  // given up its uid.
  void find_children(Domain& domain) {
    for (const auto& process : host_.processes) {
      if (process.who.parent != domain.controller) continue;
      if (process.user_ns == domain.controller_ns && process.who.name == kStemName)
        domain.owner = process.who.uid.real;
      const bool is_init = process.who.ns_pids.size() > 1 && process.who.ns_pids[1] == 1;
      if (!is_init || process.user_ns == domain.controller_ns || domain.init != 0) continue;
      domain.init = process.pid;
      domain.user_ns = process.user_ns;
    }
  }

  DirFd proc_;
  Host host_;
};

}  // namespace

bool is_of_the_kernel(const Process& process) { return !process.who.has_memory && process.who.state != 'Z'; }

const Process* Host::find(pid_t pid) const {
  const auto found = std::lower_bound(processes.begin(), processes.end(), pid,
                                      [](const Process& process, pid_t wanted) { return process.pid < wanted; });
  return found != processes.end() && found->pid == pid ? &*found : nullptr;
}

const Domain* Host::domain_of(NamespaceId id) const {
  for (const auto& domain : domains)
    if (domain.user_ns == id) return &domain;
  return nullptr;
}

std::vector<NamespaceId> Host::chain(NamespaceId id) const {
  std::vector<NamespaceId> ids{id};
  while (ids.back() != own) {
    const auto found = namespaces.find(ids.back());
    if (found == namespaces.end() || !found->second.parent || ids.size() == kMaxLevels) return {};
    ids.push_back(*found->second.parent);
  }
  return ids;
}

IdMaps seen_from_inside(const IdMaps& own_maps) {
  IdMaps maps = own_maps;
  for (auto* lines : {&maps.uid, &maps.gid})
    for (auto& line : *lines) line.outside = line.inside;
  return maps;
}

std::optional<std::string> parse_mark(const std::string& environment) {
  for (const auto variable : split(environment, '\0')) {
    if (!variable.starts_with(kMark)) continue;
    const auto uuid = parse_uuid(std::string(variable.substr(variable.rfind('/') + 1)));
    if (uuid) return format_uuid(*uuid);
  }
  return std::nullopt;
}

Result<Host> read_host(const std::string& proc) {
  auto directory = TRY(open_directory(proc));
  return Reader(std::move(directory)).read(TRY(list_directory(proc)));
}

Result<const Process*> find_subject(const Host& host, const std::string& what) {
  const auto pid = parse_number<pid_t>(what);
  if (const auto* process = pid ? host.find(*pid) : nullptr) return process;
  const Process* found = nullptr;
  for (const auto& domain : host.domains) {
    const auto* init = host.find(domain.init);
    if (!init || (domain.name != what && domain.uuid != what)) continue;
    if (domain.uuid == what) return init;
    if (found) return fail(VIR_ERR_NO_DOMAIN, "more than one domain is called " + quote(what) + "; give its UUID");
    found = init;
  }
  if (found) return found;
  return fail(VIR_ERR_NO_DOMAIN, pid ? "there is no process " + std::to_string(*pid)
                                     : "no running domain " + quote(what) +
                                           " can be seen; give a process by its number, or run this as root");
}

}  // namespace virtuserns::showinfo
