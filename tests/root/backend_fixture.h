// What the tests of the back end share: real controllers on the real kernel, in directories and groups of the test's own.
#pragma once

#include <gtest/gtest.h>
#include <libvirt/libvirt.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/userns/backend.h"
#include "tests/support/temp_dir.h"
#include "xml/domain.h"

namespace virtuserns::test {

namespace fs = std::filesystem;

struct BackendTest : testing::Test {
  TempDir dir;
  Paths paths;
  DaemonConfig config;
  EventHub hub;
  std::mutex mutex;
  std::vector<std::string> heard;
  const Caller root{};
  const std::string group = "virtuserns-backend-" + std::to_string(::getpid());
  const Uuid uuid{{0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x49, 0x08, 0x87, 0x06, 5, 4, 3, 2, 1, 0}};

  void SetUp() override {
    ::chmod(dir.path().c_str(), 0711);
    paths.driver_run = dir.path() + "/run";
    paths.definitions = dir.path() + "/etc";
    paths.state = dir.path() + "/var";
    paths.log = dir.path() + "/log";
    paths.subuid = paths.subgid = dir.path() + "/subuid";
    paths.controller = std::string(std::getenv("VIRTUSERNS_BUILD")) + "/driver/controller/virtuserns-controller";
    config.cgroup_parent = group;
    for (const char* name : {"bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "out"})
      fs::create_directories(tree() + "/" + name);
    fs::copy_file("/bin/busybox", tree() + "/bin/busybox");
    for (const char* applet : {"sh", "sleep", "reboot", "poweroff", "cat", "true", "rm"})
      fs::create_symlink("busybox", tree() + "/bin/" + applet);
    hub.subscribe([this](const Event& event) {
      const std::lock_guard lock(mutex);
      if (const auto* life = std::get_if<LifecycleEvent>(&event.body))
        heard.push_back(std::to_string(life->event) + "/" + std::to_string(life->detail));
      if (std::holds_alternative<RebootEvent>(event.body)) heard.push_back("reboot");
    });
  }

  void TearDown() override {
    // Our own sub-tree of each hierarchy, empty by now.
    for (const auto& hierarchy : hierarchies()) {
      ::rmdir((hierarchy / group / "machine").c_str());
      ::rmdir((hierarchy / group).c_str());
    }
  }

  // Where cgroup2 is alone it is mounted where v1's hierarchies have their directories.
  static std::vector<fs::path> hierarchies() {
    if (fs::exists("/sys/fs/cgroup/cgroup.controllers")) return {"/sys/fs/cgroup"};
    std::error_code ignored;
    std::vector<fs::path> found;
    for (const auto& hierarchy : fs::directory_iterator("/sys/fs/cgroup", ignored)) found.push_back(hierarchy.path());
    return found;
  }

  std::string tree() const { return dir.path() + "/tree"; }
  DomainDef domain(const std::string& script, const std::string& extra = "") const {
    const auto def = xml::parse_domain(
        "<domain type='lxc'><name>web</name><uuid>0f0e0d0c-0b0a-4908-8706-050403020100</uuid><memory unit='MiB'>64</memory>" +
        extra + "<os><type>exe</type><init>/bin/sh</init><initarg>-c</initarg><initarg>" + script +
        "</initarg></os><devices><filesystem type='mount'><source dir='" + tree() +
        "'/><target dir='/'/></filesystem>"
        "<console type='pty'/></devices></domain>");
    EXPECT_TRUE(def) << (def ? "" : def.error().text);
    return def ? *def : DomainDef{};
  }
  std::unique_ptr<userns::Backend> backend() {
    auto made = std::make_unique<userns::Backend>(config, paths, hub);
    const auto started = made->start();
    EXPECT_TRUE(started) << (started ? "" : started.error().text);
    return made;
  }
  // A daemon that does `work` and is then killed in its tracks.
  template <class Work>
  void killed_daemon(const Work& work) {
    const pid_t child = ::fork();
    if (child == 0) {
      userns::Backend daemon(config, paths, hub);
      if (!daemon.start()) ::_exit(3);
      work(daemon);
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
  }
  template <class Condition>
  static bool eventually(const Condition& condition, int ms = 10'000) {
    if (const char* factor = std::getenv("VIRTUSERNS_TIME_FACTOR")) ms *= std::max(1, std::atoi(factor));
    for (int i = 0; i < ms / 10 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return condition();
  }
  // The controller of a domain whose daemon was killed; 0: there is none.
  pid_t orphan() {
    pid_t id = 0;
    killed_daemon([&](userns::Backend& daemon) {
      (void)daemon.define(root, domain("while true; do sleep 1; done"), 0);
      const auto created = daemon.create(root, uuid, {}, 0);
      if (!created) ::_exit(4);
      std::ofstream(dir.path() + "/id") << created->id;
    });
    std::ifstream(dir.path() + "/id") >> id;
    return id;
  }
  // The child of the controller that is no stem: a domain of one process.
  static pid_t init_of(pid_t controller) {
    std::ifstream children("/proc/" + std::to_string(controller) + "/task/" + std::to_string(controller) +
                           "/children");
    for (pid_t child = 0; children >> child;)
      if (const auto name = read_kernel_file("/proc/" + std::to_string(child) + "/comm", 64);
          name && trim(*name) != "virtuserns-stem")
        return child;
    return 0;
  }
  int state(userns::Backend& daemon) const {
    const auto now = daemon.state(uuid, 0);
    return now ? now->state * 100 + now->reason : -1;
  }
  // G3: no group, no file of a run, no process with our root directory.
  void expect_nothing_left() const {
    for (const auto& hierarchy : hierarchies())
      EXPECT_FALSE(fs::exists(hierarchy / group / "machine" / ("virtuserns-" + format_uuid(uuid)))) << hierarchy;
    EXPECT_TRUE(fs::is_empty(paths.driver_run)) << *list_directory(paths.driver_run)->begin();
  }
};

inline constexpr int kRunning = VIR_DOMAIN_RUNNING * 100, kOff = VIR_DOMAIN_SHUTOFF * 100;
inline const std::string kIdle = "while true; do sleep 1; done";

}  // namespace virtuserns::test
