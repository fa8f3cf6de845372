// virt-userns-exec: runs a command in a running domain. docs/manual/virt-userns-exec.1 is what a person reads of it.
#include <getopt.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>

#include "conf/base/text.h"
#include "driver/exec/client.h"
#include "driver/exec/program.h"
#include "driver/exec/relay.h"
#include "virtuserns_build.h"

namespace virtuserns::exec {
namespace {

constexpr const char* kUsage =
    "usage: virt-userns-exec [-c URI] DOMAIN [OPTION...] [--] COMMAND [ARGUMENT...]\n"
    "  -c, --connect URI        the daemon (userns:///system)\n"
    "  -u, --user USER[:GROUP]  names of the container, or +N; its root by default\n"
    "  -w, --cwd DIR            working directory (/)\n"
    "  -e, --env NAME=VALUE     a variable of the environment; may be repeated\n"
    "  -t, --terminal           give it a terminal of the container\n"
    "  -h, --help, --version\n";

struct Options {
  std::string uri, domain;
  ExecDef command;
  bool is_help = false, is_version = false;
};

Result<void> take_option(Options& options, int option, std::string value) {
  switch (option) {
    case 'c':
      options.uri = value;
      return {};
    case 'u': {
      const auto colon = value.find(':');
      options.command.user = value.substr(0, colon);
      options.command.group = colon == std::string::npos ? std::string() : value.substr(colon + 1);
      return {};
    }
    case 'w':
      options.command.directory = value;
      return {};
    case 'e':
      options.command.environment.push_back(value);
      return {};
    case 't':
      options.command.has_terminal = true;
      return {};
    default:
      return {};
  }
}

// Options before and after DOMAIN; the first other word after it begins the command.
Result<Options> parse_options(int argc, char** argv) {
  static const option kLong[] = {
      {"connect", required_argument, nullptr, 'c'}, {"user", required_argument, nullptr, 'u'},
      {"cwd", required_argument, nullptr, 'w'},     {"env", required_argument, nullptr, 'e'},
      {"terminal", no_argument, nullptr, 't'},      {"help", no_argument, nullptr, 'h'},
      {"version", no_argument, nullptr, 'V'},       {nullptr, 0, nullptr, 0}};
  Options options;
  options.uri = default_uri();
  for (int round = 0; round < 2; ++round) {
    TRY(read_options(argc, argv, "+c:u:w:e:th", kLong, options, take_option));
    if (options.is_help || options.is_version) return options;
    if (round == 0) {
      if (optind >= argc) return fail(VIR_ERR_INVALID_ARG, "no domain is named; see 'virt-userns-exec --help'");
      options.domain = argv[optind++];
    }
  }
  for (; optind < argc; ++optind) options.command.arguments.push_back(std::string(argv[optind]));
  if (options.command.has_terminal) {
    const auto size = read_window_size();
    options.command.rows = size.rows;
    options.command.columns = size.columns;
    bool has_term = false;
    for (const auto& variable : options.command.environment) has_term |= variable.starts_with("TERM=");
    const char* term = std::getenv("TERM");
    if (!has_term) options.command.environment.push_back(std::string("TERM=") + (term ? term : "linux"));
  }
  TRY(validate_exec(options.command));
  return options;
}

Result<int> run(int argc, char** argv) {
  Options options = TRY(parse_options(argc, argv));
  if (options.is_help || options.is_version)
    return say(options.is_help ? kUsage : "virt-userns-exec " VIRTUSERNS_VERSION "\n");
  Started started;
  {
    Client client = TRY(Client::connect(TRY(parse_uri(options.uri))));
    started = TRY(client.exec(TRY(client.find_domain(options.domain)), options.command));
    // The connection goes: from here on it is between us and the domain's controller.
  }
  if (started.status != 0) {
    std::fprintf(stderr, "virt-userns-exec: error: %s\n", printable(started.text, 4096).c_str());
    return started.status;
  }
  const int status = TRY(relay(std::move(started.fds), options.command.has_terminal));
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace
}  // namespace virtuserns::exec

int main(int argc, char** argv) {
  using namespace virtuserns;
  return exec::run_program("virt-userns-exec", argc, argv, exec::run, [](const Error&) { return int{kExecFailed}; });
}
