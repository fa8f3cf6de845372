#include "driver/daemon.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string_view>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/loop.h"
#include "conf/base/text.h"
#include "conf/daemon_config.h"
#include "conf/privileges.h"
#include "driver/driver.h"
#include "driver/kernel/caps.h"
#include "driver/links/broker.h"
#include "driver/module.h"
#include "driver/single.h"
#include "driver/rpc/auth.h"
#include "driver/rpc/server.h"

namespace virtuserns {
namespace {

constexpr const char* kSource = "daemon";

void configure_logging(const DaemonConfig& config, bool is_verbose) {
  configure_log(is_verbose ? static_cast<unsigned>(LogLevel::kInfo) : config.log_level, config.log_filters,
                config.log_outputs);
}

// Clients are descriptors: as many as the system lets us have.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

bool is_read_only_socket(const Fd& socket) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return false;
  return std::string_view(address.sun_path).ends_with("-ro");
}

// Not inherited by what is in a container: a keyring of our own, and only the privileges that we and our controllers use.
// There is no no_new_privs: set-user-id programs in containers descend from us.
Result<void> limit_privileges() {
  TRY(kernel::leave_session_keyring());
  if (::geteuid() != 0) return {};
  return kernel::limit_privileges(privileges_of_daemon());
}

// What a client says is decoded without any privilege. A controller that such a thread spawns has its own again: exec as
// uid 0 takes them from the bounding set.
void limit_worker() {
  if (auto limited = kernel::hold_capabilities(privileges_of_workers()); !limited) {
    log_error(kSource, "worker: " + limited.error().text);
    std::abort();
  }
}

class Daemon {
 public:
  explicit Daemon(const DaemonOptions& options) : options_(options) {}
  ~Daemon();
  [[nodiscard]] Result<void> start();
  void run();

 private:
  [[nodiscard]] Result<void> start_drivers();
  [[nodiscard]] Result<void> start_listening();
  [[nodiscard]] Result<void> serve_links();
  [[nodiscard]] Result<void> watch_signals();
  void reload();
  void read_configuration_again();
  void arm_idle_timer();
  void leave_if_idle();

  const DaemonOptions& options_;
  DaemonConfig config_;
  Fd pid_lock_, domains_lock_;
  std::unique_ptr<Loop> loop_;
  EventHub events_;
  std::vector<std::pair<std::string, std::unique_ptr<Driver>>> drivers_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<links::LinkBroker> links_;
  Loop::TimerId idle_timer_ = 0;
};

Daemon::~Daemon() {
  links_.reset();
  if (server_) server_->stop();
  for (auto driver = drivers_.rbegin(); driver != drivers_.rend(); ++driver) driver->second->stop();
  server_.reset();
  drivers_.clear();
  if (pid_lock_) (void)!::ftruncate(pid_lock_.get(), 0);
}

Result<void> Daemon::start() {
  config_ = TRY(read_daemon_config(options_.paths.config_file));
  configure_logging(config_, options_.is_verbose);
  TRY(limit_privileges(), "limit privileges");
  raise_descriptor_limit();
  ::signal(SIGPIPE, SIG_IGN);

  const std::string directory = options_.listen_dir.empty() ? options_.paths.run : options_.listen_dir;
  TRY(make_directories(directory, options_.paths.is_session ? 0700 : 0755));
  pid_lock_ = TRY(take_pid_file(options_.pid_file.empty() ? directory + "/virtusernsd.pid" : options_.pid_file));
  if (options_.paths.is_session) domains_lock_ = TRY(take_domains(options_.paths, directory));
  loop_ = TRY(Loop::create());
  TRY(watch_signals());  // before any thread: they inherit the mask
  TRY(start_drivers());

  rpc::SessionHost sessions;
  sessions.is_session_daemon = options_.paths.is_session;
  sessions.prepare_worker = limit_worker;
  sessions.checks_owner = !config_.access_drivers.empty() && !options_.paths.is_session;
  for (const auto& name : config_.access_admin_groups)
    sessions.admin_groups.push_back(TRY(rpc::group_id(name), "access_admin_groups"));
  for (const auto& [scheme, driver] : drivers_) sessions.drivers.push_back({scheme, driver.get()});
  server_ = std::make_unique<rpc::Server>(*loop_, config_, std::move(sessions), events_);
  TRY(server_->start());
  TRY(start_listening());
  TRY(serve_links(), "links of users");
  server_->on_idle([this] { arm_idle_timer(); });
  arm_idle_timer();
  for (const auto& [scheme, driver] : drivers_)
    server_->run_in_background([d = driver.get()] { d->autostart_all(); });
  return {};
}

Result<void> Daemon::start_drivers() {
  const DriverHost host{&config_, &options_.paths, &events_};
  for (const std::string& scheme : options_.drivers) {
    drivers_.emplace_back(scheme, TRY(load_driver(options_.paths.module_dir, scheme, host)));
    TRY(drivers_.back().second->start(), "start driver '" + scheme + "'");
  }
  return {};
}

Result<void> Daemon::start_listening() {
  const int passed = ::sd_listen_fds(1);
  for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + passed; ++fd) {
    SocketFd socket(fd);
    if (::sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) <= 0)
      return fail(VIR_ERR_CONFIG_UNSUPPORTED, "was passed what is not a listening unix socket");
    const bool is_read_only = is_read_only_socket(socket);
    TRY(server_->adopt(std::move(socket), is_read_only));
  }
  if (passed > 0) return {};
  const std::string base =
      (options_.listen_dir.empty() ? options_.paths.run : options_.listen_dir) + "/virtusernsd-sock";
  if (options_.paths.is_session) return server_->listen(base, 0700, "", false);
  TRY(server_->listen(base, config_.unix_sock_rw_perms, config_.unix_sock_group, false));
  return server_->listen(base + "-ro", config_.unix_sock_ro_perms, config_.unix_sock_group, true);
}

// Once there is a grant: before, there is nothing that anybody could ask for.
Result<void> Daemon::serve_links() {
  if (options_.paths.is_session) return {};
  if (links_) {
    links_->set_grants(config_.user_links);
    return {};
  }
  if (config_.user_links.empty()) return {};
  const auto socket =
      options_.listen_dir.empty() ? options_.paths.link_broker : options_.listen_dir + "/virtusernsd-link-sock";
  links_ =
      TRY(links::LinkBroker::start({socket, options_.paths.config_file, options_.paths.proc}, config_.user_links));
  return {};
}

Result<void> Daemon::watch_signals() {
  TRY(loop_->on_signal(SIGTERM, [this] { loop_->quit(); }));
  TRY(loop_->on_signal(SIGINT, [this] { loop_->quit(); }));
  return loop_->on_signal(SIGHUP, [this] { reload(); });
}

// Limits, authentication and logging change for what comes, and what a driver takes over (Driver::reload); sockets, ranges
// of ids and the parent of the groups do not.
void Daemon::reload() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  // Type=notify-reload wants the time as well (sd_notify(3)).
  ::sd_notify(
      0, ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000))
             .c_str());
  read_configuration_again();
  ::sd_notify(0, "READY=1");
}

void Daemon::read_configuration_again() {
  auto config = read_daemon_config(options_.paths.config_file);
  if (!config) return log_error(kSource, "the configuration is kept as it was: " + config.error().text);
  configure_logging(*config, options_.is_verbose);
  server_->reload(*config);
  for (const auto& [scheme, driver] : drivers_) driver->reload(*config);
  config_.user_links = config->user_links;
  if (auto served = serve_links(); !served) log_error(kSource, "links of users: " + served.error().text);
  log_info(kSource, "configuration read again");
}

void Daemon::arm_idle_timer() {
  if (options_.timeout_s == 0 || idle_timer_ != 0) return;
  idle_timer_ = loop_->add_timer(std::uint64_t{options_.timeout_s} * 1000, [this] { leave_if_idle(); });
}

void Daemon::leave_if_idle() {
  idle_timer_ = 0;
  bool is_needed = server_->client_count() != 0;  // their leaving arms the timer again
  if (is_needed) return;
  is_needed = !config_.user_links.empty();  // nobody else would start it for whoever asks for a link
  for (const auto& [scheme, driver] : drivers_) is_needed = is_needed || driver->has_active_domains();
  if (is_needed) return arm_idle_timer();
  log_info(kSource, "leaves: nobody was connected for " + std::to_string(options_.timeout_s) + " s");
  loop_->quit();
}

void Daemon::run() {
  ::sd_notify(0, "READY=1");
  loop_->run();
  ::sd_notify(0, "STOPPING=1");
}

}  // namespace

Result<void> run_daemon(const DaemonOptions& options, void (*ready)()) {
  Daemon daemon(options);
  TRY(daemon.start());
  ready();
  daemon.run();
  return {};
}

}  // namespace virtuserns
