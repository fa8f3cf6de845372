// virtuserns-compute: the domains of a libvirt connection for a cloud scheduler. See virtuserns-compute(8).
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <mutex>
#include <string>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/frame.h"
#include "driver/compute/server.h"
#include "virtuserns_build.h"

namespace {

using namespace virtuserns;
using namespace virtuserns::compute;

constexpr const char* kConfigFile = "/etc/virtuserns/compute.conf";

// Whose instances events are told of: of other domains nobody is told. The hypervisor's threads ask, before there are instances and after.
class Audience {
 public:
  class Term {
   public:
    Term(Audience& audience, Compute& compute) : audience_(audience) { audience_.set(&compute); }
    ~Term() { audience_.set(nullptr); }
    Term(const Term&) = delete;
    Term& operator=(const Term&) = delete;

   private:
    Audience& audience_;
  };
  [[nodiscard]] bool knows(const std::string& uuid) {
    const std::lock_guard lock(mutex_);
    return compute_ && compute_->knows(uuid);
  }

 private:
  void set(Compute* compute) {
    const std::lock_guard lock(mutex_);
    compute_ = compute;
  }
  std::mutex mutex_;
  Compute* compute_ = nullptr;
};

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
  store.is_whole = wants_whole_images(settings);
  store.limit_bytes = settings.image_limit_gb << 30;
  store.reserve_percent = settings.image_reserve_percent;
  if (!settings.image_program.empty()) store.program = settings.image_program;
  auto images = TRY(Bases::open(std::move(store)));
  EventHub events;
  Audience audience;
  Hypervisor hypervisor(settings.connect, std::chrono::seconds(settings.patience_s), [&](const DomainEvent& event) {
    if (event.uuid.empty() || audience.knows(event.uuid)) events.add(event);
  });
  const auto guests = TRY(make_guests(settings, images, hypervisor));
  if (::chmod(settings.state.c_str(), guests->folder_mode()) != 0)
    return sys_fail("set the mode of " + quote(settings.state));
  Compute compute(settings, hypervisor, *guests, images);
  TRY(compute.load());
  const Audience::Term term(audience, compute);
  Host host(compute);
  Server server({compute, host}, events);
  TRY(server.listen(settings.socket, settings.socket_group));
  log_info("compute", "serving " + settings.connect + " at " + settings.socket);
  return server.serve(stop);
}

std::string host_name() {
  utsname names{};
  return ::uname(&names) == 0 ? names.nodename : "localhost";
}

Result<SocketFd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(VIR_ERR_CONF_SYNTAX, quote(path) + " is too long for a socket");
  path.copy(address.sun_path, path.size());
  SocketFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return sys_fail("connect to " + quote(path));
  return socket;
}

// What another host's migration_command runs here: an instance that waits to be fetched, on standard output.
Result<void> send(const Settings& settings, const std::string& uuid, const std::string& token) {
  const auto socket = TRY(connect_to(settings.socket));
  const Json request = {{"jsonrpc", "2.0"},
                        {"id", 1},
                        {"method", "instance.migrate_open"},
                        {"params", {{"uuid", uuid}, {"token", token}}}};
  TRY(write_frame(socket, format_json(request)));
  const auto [text, disk] = TRY(read_frame_with(socket));
  const auto json = TRY(parse_json(text));
  const auto response = TRY(Object::of(json, "the answer"));
  if (response.has("error"))
    return fail(VIR_ERR_OPERATION_FAILED, TRY(TRY(response.object("error")).text("message", kMaxFrame)));
  const Fd output(::dup(STDOUT_FILENO));
  return send_disk(output, disk, TRY(read_luggage(TRY(response.object("result")).json())));
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
  std::string uuid, token;
  auto* sender = app.add_subcommand("send", "write an instance that waits for its migration to standard output");
  sender->add_option("uuid", uuid, "of the instance")->required();
  sender->add_option("token", token, "of its ticket")->required();
  app.fallthrough();
  CLI11_PARSE(app, argc, argv);
  (void)::signal(SIGPIPE, SIG_IGN);

  auto settings = read_settings_file(config_file);
  if (!settings) {
    std::fprintf(stderr, "virtuserns-compute: %s\n", settings.error().text.c_str());
    return 1;
  }
  if (connect->count() > 0) settings->connect = given.connect;
  if (socket->count() > 0) settings->socket = given.socket;
  if (state->count() > 0) settings->state = given.state;
  for (auto* name : {&settings->host, &settings->migration_address})
    if (name->empty()) *name = host_name();
  configure_log(is_verbose ? 2 : settings->log_level, "", "");
  const auto served = sender->parsed() ? send(*settings, uuid, token) : serve(*settings);
  if (served) return 0;
  std::fprintf(stderr, "virtuserns-compute: %s\n", served.error().text.c_str());
  return 1;
}
