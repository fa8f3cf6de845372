// Stands in for virtuserns-controller and takes one wall out of the plan before it hands over: the proof that a probe
// can fail. Which one is in the domain's name: "weak-WALL" (or several, "weak-masks-root"). Never installed.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "driver/controller/plan.h"
#include "driver/controller/protocol.h"

namespace {

using namespace virtuserns;

bool has(const std::string& name, const char* wall) {
  return ("-" + name + "-").find(std::string("-") + wall + "-") != std::string::npos;
}

void weaken(LaunchPlan& plan, const std::string& name) {
  if (has(name, "filter"))
    std::erase_if(plan.inside, [](const auto& step) { return std::holds_alternative<SeccompStep>(step); });
  for (auto& step : plan.inside) {
    if (auto* capabilities = std::get_if<CapabilitiesStep>(&step); capabilities && has(name, "capabilities"))
      capabilities->bounding = ~std::uint64_t{0};
    auto* exec = std::get_if<ExecStep>(&step);
    if (exec && has(name, "environment")) exec->env.push_back("SSH_AUTH_SOCK=/run/agent");
    if (exec && has(name, "descriptor")) exec->passed_files = 1;
  }
  for (auto& step : plan.from_parent) {
    auto* proc = std::get_if<ProcStep>(&step);
    auto* sys = std::get_if<SysStep>(&step);
    if (proc && has(name, "masks")) proc->masked.clear();
    if (proc && has(name, "readonly")) proc->readonly.clear(), proc->writable.clear();
    if (sys && has(name, "masks")) sys->masked.clear();
    if (auto* maps = std::get_if<IdMapStep>(&step); maps && has(name, "root"))
      maps->maps = {{{0, 0, 65536}}, {{0, 0, 65536}}};
  }
  if (has(name, "root")) plan.host_uid = plan.host_gid = 0;
  if (has(name, "limits"))
    for (auto& step : plan.before)
      if (auto* group = std::get_if<CgroupStep>(&step))
        std::erase_if(group->writes, [](const auto& write) {
          return write.file.starts_with("pids.") || write.file.starts_with("memory.");
        });
  if (has(name, "devices")) {
    for (auto& step : plan.before)
      if (auto* group = std::get_if<CgroupStep>(&step)) group->device_rules.reset();
    plan.before.emplace_back(DeviceSourceStep{60000, "/dev/loop-control", false});
    plan.from_parent.emplace_back(DeviceNodeStep{60000, "/dev/loop-control"});
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace virtuserns;
  // The daemon gives its controllers no environment to speak of: by the place in the build.
  char self[4096] = {};
  (void)!::readlink("/proc/self/exe", self, sizeof self - 1);
  const std::string here(self, std::string(self).rfind('/') + 1);
  std::string program = here + "virtuserns-controller";
  if (::access(program.c_str(), X_OK) != 0) program = here + "../../driver/controller/virtuserns-controller";
  const std::string name = argc > 1 ? argv[1] : "";
  if (name.starts_with("weak-")) {
    const auto read = controller::read_plan_bytes();
    auto plan = read ? decode_plan(*read) : Result<LaunchPlan>(read.error());
    if (!plan) return 1;
    weaken(*plan, name);
    const auto bytes = encode_plan(*plan);
    const int memory = ::memfd_create("plan", 0);
    if (::write(memory, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) return 1;
    ::dup2(memory, controller::kPlanFd);
    if (memory != controller::kPlanFd) ::close(memory);
    // A directory of the host, as a runtime would leak one.
    if (has(name, "descriptor")) {
      const int directory = ::open("/", O_RDONLY | O_DIRECTORY);
      ::dup2(directory, controller::kFirstPassedFd);
      if (directory != controller::kFirstPassedFd) ::close(directory);
    }
  }
  ::execv(program.c_str(), argv);
  std::perror(program.c_str());
  return 1;
}
