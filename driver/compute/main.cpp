// virtuserns-compute: the domains of a libvirt connection for a cloud scheduler. See virtuserns-compute(8).
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/server.h"
#include "virtuserns_build.h"

namespace {

using namespace virtuserns;
using namespace virtuserns::compute;

constexpr const char* kConfigFile = "/etc/virtuserns/compute.conf";

// Signals as a descriptor, before any thread is made that could take them.
Result<Fd> take_signals() {
  sigset_t ending;
  ::sigemptyset(&ending);
  ::sigaddset(&ending, SIGTERM);
  ::sigaddset(&ending, SIGINT);
  if (::sigprocmask(SIG_BLOCK, &ending, nullptr) != 0) return sys_fail("block signals");
  Fd signals(::signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return sys_fail("make a descriptor of signals");
  return signals;
}

Result<void> serve(const Settings& settings) {
  const auto stop = TRY(take_signals());
  TRY(make_directories(settings.state, 0700));
  // One adapter writes these journals, whatever socket another one listens on.
  const auto lock =
      TRY(lock_file(settings.state + "/lock"), "another virtuserns-compute uses " + quote(settings.state));
  StoreOptions store;
  store.folder = settings.state + "/images";
  if (!settings.image_program.empty()) store.program = settings.image_program;
  auto images = TRY(Bases::open(std::move(store)));
  EventHub events;
  Compute* known = nullptr;
  // Of other domains nobody is told.
  Hypervisor hypervisor(settings.connect, std::chrono::seconds(settings.patience_s), [&](const DomainEvent& event) {
    if (event.uuid.empty() || (known && known->knows(event.uuid))) events.add(event);
  });
  Compute compute(settings, hypervisor, images);
  TRY(compute.load());
  known = &compute;
  Host host(compute);
  Server server({compute, host}, events);
  TRY(server.listen(settings.socket, settings.socket_group));
  log_info("compute", "serving " + settings.connect + " at " + settings.socket);
  return server.serve(stop);
}

}  // namespace

int main(int argc, char** argv) {
  std::string config_file = kConfigFile;
  Settings given;
  bool is_verbose = false;
  CLI::App app{"Offers the domains of a libvirt connection to a cloud scheduler.", "virtuserns-compute"};
  app.set_version_flag("-V,--version", "virtuserns-compute " VIRTUSERNS_VERSION);
  app.add_option("-f,--config", config_file, "configuration file")->type_name("FILE");
  const auto* connect = app.add_option("-c,--connect", given.connect, "the hypervisor")->type_name("URI");
  const auto* socket = app.add_option("--socket", given.socket, "where clients connect")->type_name("PATH");
  const auto* state = app.add_option("--state-dir", given.state, "instances and images")->type_name("DIR");
  app.add_flag("-v,--verbose", is_verbose, "log what happens, not only what goes wrong");
  CLI11_PARSE(app, argc, argv);

  auto settings = read_settings_file(config_file);
  if (!settings) {
    std::fprintf(stderr, "virtuserns-compute: %s\n", settings.error().text.c_str());
    return 1;
  }
  if (connect->count() > 0) settings->connect = given.connect;
  if (socket->count() > 0) settings->socket = given.socket;
  if (state->count() > 0) settings->state = given.state;
  configure_log(is_verbose ? 2 : settings->log_level, "", "");
  const auto served = serve(*settings);
  if (served) return 0;
  std::fprintf(stderr, "virtuserns-compute: %s\n", served.error().text.c_str());
  return 1;
}
