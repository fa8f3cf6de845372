// virt-userns-drill: tries the walls of a running domain. docs/manual/virt-userns-drill.1 is what a person reads of it.
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "driver/exec/client.h"
#include "driver/exec/program.h"
#include "tools/drill/inside.h"
#include "tools/drill/outside.h"
#include "tools/drill/report.h"
#include "virtuserns_build.h"

namespace virtuserns::drill {
namespace {

constexpr int kHeld = 0, kFailed = 1, kCouldNotRun = 2;
constexpr const char* kUsage =
    "usage: virt-userns-drill [-c URI] [OPTION...] DOMAIN\n"
    "       virt-userns-drill [OPTION...] --process PID\n"
    "  -c, --connect URI   the daemon (userns:///system)\n"
    "  -a, --all           also what may disturb the domain while it is tried\n"
    "  -j, --json          a document for scripts\n"
    "  -v, --verbose       every single check\n"
    "  -p, --process PID   only what is seen from outside, of a process in any container\n"
    "      --probes FILE   the program of the probes, when it is not the installed one\n"
    "  -h, --help, --version\n"
    "exit status: 0 every wall holds, 1 one is missing, 2 it could not be tried\n";

struct Options {
  std::string uri, domain, program;
  pid_t process = 0;
  bool are_all = false, is_json = false, is_verbose = false, is_help = false, is_version = false;
};

Result<void> take_option(Options& options, int option, std::string value) {
  switch (option) {
    case 'c':
      options.uri = value;
      return {};
    case 'a':
      options.are_all = true;
      return {};
    case 'j':
      options.is_json = true;
      return {};
    case 'v':
      options.is_verbose = true;
      return {};
    case 'p':
      options.process = parse_number<pid_t>(value).value_or(0);
      if (options.process < 1) return fail(VIR_ERR_INVALID_ARG, quote(value) + " is no process");
      return {};
    case 'P':
      options.program = value;
      return {};
    default:
      return {};
  }
}

Result<Options> parse_options(int argc, char** argv) {
  static const option kLong[] = {{"connect", required_argument, nullptr, 'c'},
                                 {"all", no_argument, nullptr, 'a'},
                                 {"json", no_argument, nullptr, 'j'},
                                 {"verbose", no_argument, nullptr, 'v'},
                                 {"process", required_argument, nullptr, 'p'},
                                 {"probes", required_argument, nullptr, 'P'},
                                 {"help", no_argument, nullptr, 'h'},
                                 {"version", no_argument, nullptr, 'V'},
                                 {nullptr, 0, nullptr, 0}};
  Options options;
  options.uri = exec::default_uri();
  options.program = VIRTUSERNS_LIBEXEC_DIR "/virtuserns-drill";
  TRY(exec::read_options(argc, argv, "c:ajvp:h", kLong, options, take_option));
  if (options.is_help || options.is_version) return options;
  if (argc - optind != (options.process == 0 ? 1 : 0))
    return fail(VIR_ERR_INVALID_ARG, "name one domain, or one --process; see 'virt-userns-drill --help'");
  if (options.process == 0) options.domain = argv[optind];
  if (::geteuid() != 0)
    return fail(VIR_ERR_OPERATION_DENIED, "only root sees a container from outside: run it as root");
  return options;
}

// What the container's user has used up must not be gone for the host's (promise 2 of docs/security.md).
Result<Finding> try_counters(exec::Client& client, const DomainRef& domain, Fd program) {
  Finding finding{'C', "outside_counters", true, Outcome::kHeld, ""};
  const auto hog = TRY(Hog::start(client, domain, std::move(program)));
  const Fd instance(::inotify_init1(IN_CLOEXEC));
  finding.detail = printable(hog.said());
  if (!instance) {
    finding.outcome = Outcome::kFailed;
    finding.detail = "root of the host has no inotify instance left: " + finding.detail;
  }
  return finding;
}

Result<void> try_domain(const Options& options, Report& report) {
  const auto address = TRY(exec::parse_uri(options.uri));
  auto client = TRY(exec::Client::connect(address));
  const auto domain = TRY(client.find_domain(options.domain));
  if (domain.id < 0)
    return fail(VIR_ERR_OPERATION_INVALID, "domain " + quote(domain.name) + " does not run; start it");
  report.subject = "domain " + quote(domain.name);
  report.name = domain.name;
  report.uuid = format_uuid(domain.uuid);
  report.uri = address.name;
  const auto subject = TRY(find_subject(domain.id, report.uuid));
  report.process = subject.process;
  report.findings = TRY(run_probes(client, domain, TRY(seal_program(options.program)), options.are_all));
  auto seen = TRY(look_from_outside(subject));
  report.findings.insert(report.findings.end(), seen.begin(), seen.end());
  Finding counters{'C', "outside_counters", true, Outcome::kNotRun, "uses up what the domain may have"};
  if (options.are_all) counters = TRY(try_counters(client, domain, TRY(seal_program(options.program))));
  report.findings.push_back(std::move(counters));
  // The numbers were those of this domain all the time, or what was seen is worth nothing.
  const auto now = TRY(client.find_domain(report.uuid));
  if (now.id != domain.id || TRY(find_subject(now.id, report.uuid)).process != subject.process)
    return fail(VIR_ERR_OPERATION_FAILED, "the domain was restarted meanwhile; try again");
  return {};
}

Result<void> try_process(const Options& options, Report& report) {
  const std::string place = "/proc/" + std::to_string(options.process);
  const Fd process(::open(place.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!process) return sys_fail("no process " + std::to_string(options.process));
  report.subject = "process " + std::to_string(options.process);
  report.process = options.process;
  report.findings = TRY(look_from_outside({options.process, {}, ""}));
  if (::faccessat(process.get(), "status", R_OK, 0) != 0)
    return fail(VIR_ERR_OPERATION_FAILED, "the process ended meanwhile");
  return {};
}

Result<int> run(int argc, char** argv) {
  const Options options = TRY(parse_options(argc, argv));
  if (options.is_help || options.is_version)
    return exec::say(options.is_help ? kUsage : "virt-userns-drill " VIRTUSERNS_VERSION "\n");
  ::signal(SIGPIPE, SIG_IGN);
  Report report;
  utsname machine{};
  ::uname(&machine);
  report.kernel = machine.release;
  char time[32] = {};
  const std::time_t now = std::time(nullptr);
  tm parts{};
  std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", ::gmtime_r(&now, &parts));
  report.time = time;
  TRY(options.process != 0 ? try_process(options, report) : try_domain(options, report));
  const std::string text = options.is_json ? format_json(report) : format_text(report, options.is_verbose);
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) return sys_fail("write the verdict");
  return has_failed(report) ? kFailed : kHeld;
}

}  // namespace
}  // namespace virtuserns::drill

int main(int argc, char** argv) {
  using namespace virtuserns;
  return exec::run_program("virt-userns-drill", argc, argv, drill::run,
                           [](const Error&) { return drill::kCouldNotRun; });
}
