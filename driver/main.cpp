// virtusernsd: options, background, exit code. What it does is in daemon.cpp.
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "conf/base/log.h"
#include "driver/daemon.h"
#include "virtuserns_build.h"

namespace {

using virtuserns::DaemonOptions;

int g_ready_pipe = -1;  // of the process that went into the background: one byte says that it serves

void tell_ready() {
  if (g_ready_pipe < 0) return;
  // Errors at the start still went to the terminal; from here on the log has its own place or none. First of all: whoever
  // waits for the parent may close the terminal then.
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2 && null >= 0; ++fd) ::dup2(null, fd);
  if (null > 2) ::close(null);
  (void)!::write(g_ready_pipe, "r", 1);
  ::close(g_ready_pipe);
  g_ready_pipe = -1;
}

// The parent leaves when the child serves (0) or has failed (1). Returns in the child only.
void go_to_background() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) std::exit(1);
  const pid_t child = ::fork();  // no thread exists yet
  if (child < 0) std::exit(1);
  if (child > 0) {
    ::close(ends[1]);
    char byte = 0;
    std::exit(::read(ends[0], &byte, 1) == 1 ? 0 : 1);
  }
  ::close(ends[0]);
  g_ready_pipe = ends[1];
  ::setsid();
  (void)!::chdir("/");
}

void add_options(CLI::App& app, DaemonOptions& options, bool& is_daemon) {
  auto& paths = options.paths;
  app.set_version_flag("-V,--version", "virtusernsd " VIRTUSERNS_VERSION);
  app.add_option("-f,--config", paths.config_file, "configuration file")->type_name("FILE");
  app.add_option("--driver", options.drivers, "driver to load; may be repeated, the first one is the default")
      ->type_name("NAME");
  app.add_option("--listen-dir", options.listen_dir, "where the sockets are")->type_name("DIR");
  app.add_option("-p,--pid-file", options.pid_file, "pid file, locked while the daemon runs")->type_name("FILE");
  app.add_option("-t,--timeout", options.timeout_s, "leave after SECONDS without a client or a running domain")
      ->type_name("SECONDS");
  app.add_flag("-d,--daemon", is_daemon, "run in the background");
  app.add_flag("-v,--verbose", options.is_verbose, "log what happens, not only what goes wrong");
  app.add_option("--module-dir", paths.module_dir, "where the driver modules are")->type_name("DIR");
  app.add_option("--controller", paths.controller, "the program that holds a running domain")->type_name("PATH");
  app.add_option("--run-dir", paths.run, "run-time directory, the default of --listen-dir")->type_name("DIR");
  app.add_option("--driver-run-dir", paths.driver_run, "run-time state of domains")->type_name("DIR");
  app.add_option("--definitions-dir", paths.definitions, "domain definitions")->type_name("DIR");
  app.add_option("--state-dir", paths.state, "leases")->type_name("DIR");
  app.add_option("--log-dir", paths.log, "logs of domains")->type_name("DIR");
  app.add_option("--cgroup-root", paths.cgroup, "where the cgroup hierarchies are")->type_name("DIR");
  app.add_option("--subuid", paths.subuid, "in place of /etc/subuid")->type_name("FILE");
  app.add_option("--subgid", paths.subgid, "in place of /etc/subgid")->type_name("FILE");
}

}  // namespace

int main(int argc, char** argv) {
  // Set, so that the C library does not raise it with the first large message: those that follow would come out of the
  // threads' heaps, and stay in them for as long as the daemon lives.
  ::mallopt(M_MMAP_THRESHOLD, 256 * 1024);
  DaemonOptions options;
  options.paths = ::geteuid() == 0 ? virtuserns::system_paths() : virtuserns::session_paths();
  bool is_daemon = false;
  CLI::App app("Manages user-namespace containers for clients of libvirt.", "virtusernsd");
  add_options(app, options, is_daemon);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!options.paths.config_file.empty() && app.count("--config") > 0 &&
      ::access(options.paths.config_file.c_str(), R_OK) != 0) {
    virtuserns::log_error("main", "cannot read " + options.paths.config_file);
    return 2;
  }

  if (is_daemon) go_to_background();
  ::umask(022);
  if (const auto ended = virtuserns::run_daemon(options, &tell_ready); !ended) {
    virtuserns::log_error("main", ended.error().text);
    return 1;
  }
  return 0;
}
