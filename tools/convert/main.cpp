// virt-userns-convert: a KVM machine becomes a container. docs/manual/virt-userns-convert.1 is what a person reads of it.
#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "conf/base/text.h"
#include "driver/exec/program.h"
#include "tools/convert/convert.h"
#include "tools/convert/report.h"
#include "tools/convert/storage.h"
#include "virtuserns_build.h"

namespace virtuserns::convert {
namespace {

constexpr int kDone = 0, kError = 1, kBlocked = 3;
constexpr const char* kUsage =
    "usage: virt-userns-convert plan [OPTION...] DOMAIN|DISK...\n"
    "       virt-userns-convert convert [OPTION...] DOMAIN|DISK\n"
    "       virt-userns-convert commit|rollback [OPTION...] NAME\n"
    "       virt-userns-convert back [OPTION...] --output DIR NAME\n"
    "a DISK is a path; a DOMAIN is one of --connect\n"
    "  -c, --connect URI       where the virtual machine is (qemu:///system)\n"
    "  -x, --xml FILE          its definition in a file, in the place of a DOMAIN\n"
    "  -t, --target URI        where the container is defined (userns:///system)\n"
    "  -n, --name NAME         of the container (that of the machine)\n"
    "      --copy tree|image   copy the files; otherwise it runs in place, on top of the disk\n"
    "      --size N[M|G|T]     of the image\n"
    "      --clone             the machine will go on to be used: other ids and addresses\n"
    "      --start             start the container\n"
    "      --live              of a DOMAIN that runs: copy (--copy tree) while it does, then shut it down, copy what is\n"
    "                          new, and start the container\n"
    "      --shutdown-limit S  how long it may take to shut down (120); then it goes on as it was, or\n"
    "      --destroy           is destroyed\n"
    "      --wait-port PORT    of the container, until it answers\n"
    "      --overlay-folder DIR  where the machine writes while it is copied (beside its disks)\n"
    "      --force             also when something says that it will not work\n"
    "      --root VOLUME       which volume is '/' (vda2, vg/root)\n"
    "      --id-count N        how many ids the container has (65536)\n"
    "      --format FORMAT     of a DISK (by its first bytes)\n"
    "      --backing-folder DIR  where else files that a disk is based on may be; may be repeated\n"
    "      --memory MIB, --vcpus N  of a DISK alone (1024, 1)\n"
    "      --folder DIR        where conversions are kept (/var/lib/virtuserns/convert)\n"
    "  -o, --output DIR        back: where the new disks go\n"
    "  -j, --json              the report as a document for scripts\n"
    "  -q, --quiet             no progress\n"
    "  -h, --help, --version\n"
    "exit status: 0 done, 1 an error; of plan: 2 something is lost, 3 it cannot be a container; of convert: 3 likewise\n";

enum LongOnly {
  kCopy = 256,
  kSize,
  kClone,
  kStart,
  kForce,
  kRoot,
  kIdCount,
  kFormat,
  kBackingFolder,
  kMemory,
  kVcpus,
  kLive,
  kShutdownLimit,
  kDestroy,
  kWaitPort,
  kOverlayFolder,
  kFolder
};

constexpr option kLong[] = {{"connect", required_argument, nullptr, 'c'},
                            {"xml", required_argument, nullptr, 'x'},
                            {"target", required_argument, nullptr, 't'},
                            {"name", required_argument, nullptr, 'n'},
                            {"copy", required_argument, nullptr, kCopy},
                            {"size", required_argument, nullptr, kSize},
                            {"clone", no_argument, nullptr, kClone},
                            {"start", no_argument, nullptr, kStart},
                            {"force", no_argument, nullptr, kForce},
                            {"root", required_argument, nullptr, kRoot},
                            {"id-count", required_argument, nullptr, kIdCount},
                            {"format", required_argument, nullptr, kFormat},
                            {"backing-folder", required_argument, nullptr, kBackingFolder},
                            {"memory", required_argument, nullptr, kMemory},
                            {"vcpus", required_argument, nullptr, kVcpus},
                            {"live", no_argument, nullptr, kLive},
                            {"shutdown-limit", required_argument, nullptr, kShutdownLimit},
                            {"destroy", no_argument, nullptr, kDestroy},
                            {"wait-port", required_argument, nullptr, kWaitPort},
                            {"overlay-folder", required_argument, nullptr, kOverlayFolder},
                            {"folder", required_argument, nullptr, kFolder},
                            {"output", required_argument, nullptr, 'o'},
                            {"json", no_argument, nullptr, 'j'},
                            {"quiet", no_argument, nullptr, 'q'},
                            {"help", no_argument, nullptr, 'h'},
                            {"version", no_argument, nullptr, 'V'},
                            {nullptr, 0, nullptr, 0}};

// What means nothing to a command is refused: it would be taken as obeyed.
bool is_option_of(std::string_view command, int option) {
  switch (option) {
    case 'j':
    case 'q':
    case kFolder:
      return true;
    case 'o':
      return command == "back";
    case kStart:
    case kForce:
    case kLive:
    case kShutdownLimit:
    case kDestroy:
    case kWaitPort:
    case kOverlayFolder:
      return command == "convert";
    default:
      return command == "plan" || command == "convert";
  }
}

struct Options {
  Settings settings;
  std::string output;
  std::vector<std::string> words;
  std::vector<int> given;
  bool is_json = false, is_quiet = false, is_help = false, is_version = false;
};

Error wrong(const std::string& text) {
  return fail(VIR_ERR_INVALID_ARG, text + "; see 'virt-userns-convert --help'");
}

// "20G"
Result<std::uint64_t> parse_size(const std::string& text) {
  constexpr std::string_view kUnits = "KMGT";
  auto digits = std::string_view(text);
  unsigned shift = 0;
  if (const auto unit = digits.empty() ? std::string_view::npos : kUnits.find(digits.back());
      unit != std::string_view::npos)
    shift = static_cast<unsigned>(10 * (unit + 1)), digits.remove_suffix(1);
  const auto number = parse_number<std::uint64_t>(digits);
  if (!number || *number == 0 || *number > (std::uint64_t{1} << 50 >> shift))
    return wrong(quote(text) + " is no size");
  return (*number << shift) / 4096 * 4096;
}

Result<std::uint32_t> parse_count(const std::string& text, std::uint32_t most) {
  const auto number = parse_number<std::uint32_t>(text);
  if (!number || *number == 0 || *number > most)
    return wrong(quote(text) + " is no number from 1 to " + std::to_string(most));
  return *number;
}

Result<void> take_live(LiveSettings& live, int option, const std::string& value) {
  switch (option) {
    case kShutdownLimit:
      live.limit_s = TRY(parse_count(value, 24 * 3600));
      return {};
    case kDestroy:
      live.is_destroyed = true;
      return {};
    case kWaitPort:
      live.port = static_cast<std::uint16_t>(TRY(parse_count(value, 65535)));
      return {};
    case kOverlayFolder:
      live.folder = value;
      return {};
    default:
      live.is_wanted = true;
      return {};
  }
}

Result<void> take_long(Options& options, int option, const std::string& value) {
  auto& settings = options.settings;
  switch (option) {
    case kCopy:
      if (value != "tree" && value != "image") return wrong("--copy takes 'tree' or 'image'");
      settings.mode = value == "tree" ? Mode::kTree : Mode::kImage;
      return {};
    case kSize:
      settings.image_bytes = TRY(parse_size(value));
      return {};
    case kClone:
      settings.is_clone = true;
      return {};
    case kStart:
      settings.is_started = true;
      return {};
    case kForce:
      settings.is_forced = true;
      return {};
    case kRoot:
      settings.root = value;
      return {};
    case kIdCount:
      settings.id_count = TRY(parse_count(value, 1u << 31));
      return {};
    case kFormat:
      settings.source.format = value;
      return {};
    case kBackingFolder:
      settings.source.folders.push_back(value);
      return {};
    case kMemory:
      settings.source.memory_mib = TRY(parse_count(value, 1u << 30));
      return {};
    case kVcpus:
      settings.source.vcpus = TRY(parse_count(value, 4096));
      return {};
    case kLive:
    case kShutdownLimit:
    case kDestroy:
    case kWaitPort:
    case kOverlayFolder:
      return take_live(settings.live, option, value);
    default:
      settings.folder = value;
      return {};
  }
}

Result<void> take_option(Options& options, int option, std::string value) {
  options.given.push_back(option);
  switch (option) {
    case 'c':
      options.settings.source.uri = value;
      return {};
    case 'x':
      options.settings.source.xml_file = value;
      return {};
    case 't':
      options.settings.uri = value;
      return {};
    case 'n':
      options.settings.name = value;
      return {};
    case 'o':
      options.output = value;
      return {};
    case 'j':
      options.is_json = true;
      return {};
    case 'q':
      options.is_quiet = true;
      return {};
    default:
      return take_long(options, option, value);
  }
}

Result<void> check_live(const Settings& settings) {
  const auto& live = settings.live;
  if (!live.is_wanted && live == LiveSettings{}) return {};
  if (!live.is_wanted) return wrong("--shutdown-limit, --destroy, --wait-port and --overlay-folder are of --live");
  if (settings.mode != Mode::kTree) return wrong("--live needs --copy tree");
  if (settings.is_clone || !settings.source.xml_file.empty())
    return wrong("--live is of a DOMAIN that ends, and goes with neither --clone nor --xml");
  if (!live.folder.empty() && live.folder.front() != '/') return wrong("--overlay-folder needs an absolute path");
  return {};
}

Result<Options> parse_options(int argc, char** argv) {
  Options options;
  options.settings.source.uri = "qemu:///system";
  TRY(exec::read_options(argc, argv, "c:x:t:n:o:jqh", kLong, options, take_option));
  options.words.assign(argv + optind, argv + argc);
  if (options.is_help || options.is_version) return options;
  if (options.words.empty()) return wrong("name a command");
  if ((options.settings.mode == Mode::kImage) != (options.settings.image_bytes != 0))
    return wrong("--copy image needs --size, and nothing else has it");
  TRY(check_live(options.settings));
  if (options.settings.folder.empty() || options.settings.folder.front() != '/' ||
      options.settings.folder.size() > 2000)
    return wrong("--folder needs an absolute path");
  if (::geteuid() != 0)
    return fail(VIR_ERR_OPERATION_DENIED, "only root mounts the disks of a machine: run it as root");
  if (!options.is_quiet)
    options.settings.say = [](const std::string& text) {
      std::fprintf(stderr, "%s\n", printable(text, 1024).c_str());
    };
  return options;
}

Result<void> check_options(std::string_view command, const Options& options) {
  constexpr std::string_view kCommands[] = {"plan", "convert", "commit", "rollback", "back"};
  if (std::find(std::begin(kCommands), std::end(kCommands), command) == std::end(kCommands))
    return wrong(quote(command) + " is no command");
  for (const int given : options.given)
    if (!is_option_of(command, given))
      for (const auto& name : kLong)
        if (name.val == given) return wrong(quote(command) + " has no use for --" + name.name);
  return {};
}

Result<void> show(const Options& options, const std::vector<Report>& reports) {
  std::string text;
  if (options.is_json)
    text = format_reports_json(reports);
  else if (reports.size() == 1)
    text = format_report(reports.front());
  else
    text = format_reports_table(reports);
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) return sys_fail("write the report");
  return {};
}

// A machine that cannot be looked at is one line of the table, as long as there are others.
Result<int> plan(const Options& options, const std::vector<std::string>& machines, const std::string& workplace) {
  std::vector<Report> reports;
  for (const auto& machine : machines) {
    auto report = plan_machine(machine, options.settings, workplace);
    if (!report && machines.size() == 1) return std::move(report).error();
    if (report)
      reports.push_back(std::move(*report));
    else
      reports.push_back({machine, {{Severity::kBlock, "machine '" + machine + "'", report.error().text, ""}}});
  }
  TRY(show(options, reports));
  return exit_code(reports);
}

Result<int> convert(const Options& options, const std::string& machine, const std::string& workplace) {
  const auto report = TRY(convert_machine(machine, options.settings, workplace));
  TRY(show(options, {report}));
  if (worst(report.findings) == Severity::kBlock && !options.settings.is_forced) return kBlocked;
  // After the report, which is true whatever comes of it.
  if (options.settings.is_started && !options.settings.live.is_wanted)
    TRY(start_converted(report.domain, options.settings));
  return kDone;
}

Result<int> finish(const Options& options, const Result<Report>& report) {
  if (!report) return report.error();
  TRY(show(options, {*report}));
  return kDone;
}

Result<int> run(int argc, char** argv) {
  const auto options = TRY(parse_options(argc, argv));
  if (options.is_help || options.is_version)
    return exec::say(options.is_help ? kUsage : "virt-userns-convert " VIRTUSERNS_VERSION "\n");
  ::signal(SIGPIPE, SIG_IGN);
  const auto& command = options.words.front();
  TRY(check_options(command, options));
  std::vector<std::string> words(options.words.begin() + 1, options.words.end());
  const bool is_of_machine = command == "plan" || command == "convert";
  const bool has_xml = !options.settings.source.xml_file.empty();
  if (has_xml && is_of_machine && words.empty()) words.push_back(options.settings.source.xml_file);
  if (words.empty() || (words.size() > 1 && (command != "plan" || has_xml)))
    return wrong(quote(command) + " takes one name");
  const auto workplace = TRY(make_workplace());
  if (command == "plan") return plan(options, words, workplace);
  if (command == "convert") return convert(options, words.front(), workplace);
  if (command == "rollback") return finish(options, roll_back(words.front(), options.settings));
  if (command == "commit") return finish(options, commit_conversion(words.front(), options.settings, workplace));
  return finish(options, bring_back(words.front(), options.output, options.settings, workplace));
}

}  // namespace
}  // namespace virtuserns::convert

int main(int argc, char** argv) {
  using namespace virtuserns;
  return exec::run_program("virt-userns-convert", argc, argv, convert::run,
                           [](const Error&) { return convert::kError; });
}
