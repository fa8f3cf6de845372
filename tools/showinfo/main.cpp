// virt-userns-showinfo: ids, namespaces and what they mean. docs/manual/virt-userns-showinfo.1 is what a person reads of it.
#include <getopt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/paths.h"
#include "driver/exec/client.h"
#include "driver/exec/program.h"
#include "driver/kernel/pidfd.h"
#include "tools/showinfo/config.h"
#include "tools/showinfo/explain.h"
#include "tools/showinfo/files.h"
#include "tools/showinfo/map.h"
#include "tools/showinfo/owners.h"
#include "tools/showinfo/processes.h"
#include "tools/showinfo/tree.h"
#include "virtuserns_build.h"

namespace virtuserns::showinfo {
namespace {

constexpr int kFound = 0, kNotFound = 1, kWrongUsage = 2, kCannotSay = 3;
constexpr int kExplainLimitMs = 10'000;
constexpr std::size_t kMaxXmlBytes = 8 * 1024 * 1024;
constexpr const char* kUsage =
    "usage: virt-userns-showinfo [OPTION...] files [PATH...]\n"
    "       virt-userns-showinfo [OPTION...] ps [PID|COMMAND|DOMAIN...]\n"
    "       virt-userns-showinfo [OPTION...] config [DOMAIN...]\n"
    "       virt-userns-showinfo [OPTION...] --tree\n"
    "       virt-userns-showinfo [OPTION...] map PID|DOMAIN ID\n"
    "       virt-userns-showinfo [OPTION...] explain PID|DOMAIN ACTION OBJECT\n"
    "           open|device|exec PATH, signal|trace PID|DOMAIN, mount TYPE, bind PORT\n"
    "  -c, --connect URI   config: the daemon (userns:///system)\n"
    "  -f, --file FILE     config: a domain's XML instead; '-' is standard input; may be repeated\n"
    "  -H, --host          map: ID is the host's\n"
    "  -u, --uid; -g, --gid  map: this kind of id alone\n"
    "  -a, --access r|w|rw explain: open and device for this (r; rw)\n"
    "  -j, --json          a document for scripts\n"
    "  -t, --tree          the user namespaces and who is in them\n"
    "  -h, --help, --version\n"
    "exit status: 0 shown; it may, 1 not found, not mapped, not visible; it may not, 2 wrong usage, 3 cannot be said\n";

struct Options {
  std::string uri, access;
  std::vector<std::string> files, words;  // words: the command and its arguments
  bool is_json = false, is_tree = false, is_from_host = false, is_uid = false, is_gid = false;
  bool is_help = false, is_version = false;
};

Result<void> take_option(Options& options, int option, std::string value) {
  switch (option) {
    case 'c':
      options.uri = value;
      return {};
    case 'f':
      options.files.push_back(value);
      return {};
    case 'a':
      options.access = value;
      return {};
    case 'H':
      options.is_from_host = true;
      return {};
    case 'u':
      options.is_uid = true;
      return {};
    case 'g':
      options.is_gid = true;
      return {};
    case 'j':
      options.is_json = true;
      return {};
    case 't':
      options.is_tree = true;
      return {};
    default:
      return {};
  }
}

Result<Options> parse_options(int argc, char** argv) {
  static const option kLong[] = {{"connect", required_argument, nullptr, 'c'},
                                 {"file", required_argument, nullptr, 'f'},
                                 {"access", required_argument, nullptr, 'a'},
                                 {"host", no_argument, nullptr, 'H'},
                                 {"uid", no_argument, nullptr, 'u'},
                                 {"gid", no_argument, nullptr, 'g'},
                                 {"json", no_argument, nullptr, 'j'},
                                 {"tree", no_argument, nullptr, 't'},
                                 {"help", no_argument, nullptr, 'h'},
                                 {"version", no_argument, nullptr, 'V'},
                                 {nullptr, 0, nullptr, 0}};
  Options options;
  options.uri = exec::default_uri();
  TRY(exec::read_options(argc, argv, "c:f:a:Hugjth", kLong, options, take_option));
  options.words.assign(argv + optind, argv + argc);
  if (options.is_help || options.is_version) return options;
  if (options.words.empty() != options.is_tree)
    return fail(VIR_ERR_INVALID_ARG, "name one command, or --tree; see 'virt-userns-showinfo --help'");
  return options;
}

void complain(const std::string& text) {
  std::fprintf(stderr, "virt-userns-showinfo: %s\n", printable(text, 4096).c_str());
}

Result<int> show(const std::string& text, bool is_complete = true) {
  TRY(exec::say(text.c_str()));
  return is_complete ? kFound : kNotFound;
}

Result<int> show_files(const Options& options, const std::vector<std::string>& paths) {
  const auto found = read_files(paths);
  for (const auto& problem : found.problems) complain(problem);
  const HostNames names;
  return show(options.is_json ? format_files_json(found.rows, names) : format_files(found.rows, names),
              found.problems.empty());
}

Result<int> show_processes(const Options& options, const std::vector<std::string>& wanted) {
  const auto host = TRY(read_host());
  const auto chosen = choose_processes(host, wanted);
  for (const auto& missing : chosen.missing)
    complain("no process, command or running domain " + quote(missing) + " can be seen");
  const HostNames names;
  const auto hidden = format_hidden(host);
  if (!hidden.empty() && !options.is_json) complain(hidden);
  return show(
      options.is_json ? format_processes_json(host, chosen.rows, names) : format_processes(chosen.rows, names),
      chosen.missing.empty());
}

Result<int> show_tree(const Options& options) {
  const auto host = TRY(read_host());
  const HostNames names;
  const auto hidden = format_hidden(host);
  if (!hidden.empty() && !options.is_json) complain(hidden);
  return show(options.is_json ? format_tree_json(host, names) : format_tree(host, names));
}

Result<std::string> read_standard_input() {
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(0, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
    if (text.size() > kMaxXmlBytes) return fail(VIR_ERR_INVALID_ARG, "standard input is no domain: it does not end");
  }
  return text;
}

Result<std::vector<std::string>> read_definitions(const Options& options, const std::vector<std::string>& domains) {
  std::vector<std::string> texts;
  for (const auto& file : options.files)
    texts.push_back(TRY(file == "-" ? read_standard_input() : read_file(file, kMaxXmlBytes)));
  if (!options.files.empty()) {
    if (!domains.empty()) return fail(VIR_ERR_INVALID_ARG, "give files or domains, not both");
    return texts;
  }
  auto client = TRY(exec::Client::connect(TRY(exec::parse_uri(options.uri))));
  if (domains.empty())
    for (const auto& domain : TRY(client.list_domains())) texts.push_back(TRY(client.read_xml(domain)));
  for (const auto& domain : domains) texts.push_back(TRY(client.read_xml(TRY(client.find_domain(domain)))));
  return texts;
}

Result<int> show_config(const Options& options, const std::vector<std::string>& domains) {
  std::vector<DomainMap> maps;
  bool is_complete = true;
  for (const auto& text : TRY(read_definitions(options, domains))) {
    auto map = read_domain_map(text);
    if (map)
      maps.push_back(std::move(*map));
    else
      complain(map.error().text), is_complete = false;
  }
  return show(options.is_json ? format_config_json(maps) : format_config(maps), is_complete);
}

Result<int> show_map(const Options& options, const std::vector<std::string>& words) {
  if (words.size() != 2) return fail(VIR_ERR_INVALID_ARG, "map takes a process or domain, and an id");
  const auto id = parse_number<std::uint32_t>(words[1]);
  if (!id) return fail(VIR_ERR_INVALID_ARG, quote(words[1]) + " is no id; give a number");
  const auto host = TRY(read_host());
  const auto* process = TRY(find_subject(host, words[0]));
  const auto claims = read_claims(::geteuid() == 0 ? system_paths() : session_paths(), host);
  std::vector<MapAnswer> answers;
  bool is_mapped = true;
  for (const auto kind : {IdKind::kUid, IdKind::kGid}) {
    const bool is_wanted = kind == IdKind::kUid ? options.is_uid : options.is_gid;
    if (!is_wanted && (options.is_uid || options.is_gid)) continue;
    answers.push_back(
        TRY(translate(host, *process, kind, options.is_from_host ? From::kHost : From::kContainer, *id, claims)));
    is_mapped &= answers.back().is_mapped;
  }
  return show(options.is_json ? format_map_json(answers) : format_map(answers), is_mapped);
}

Result<int> show_verdict(const Options& options, const std::vector<std::string>& words) {
  if (words.size() != 3)
    return fail(VIR_ERR_INVALID_ARG, "explain takes a process or domain, an action and its object");
  const std::string usual = words[1] == "device" ? "rw" : "r";
  const auto verdict =
      TRY(explain(TRY(read_host()), {words[0], words[1], words[2], options.access.empty() ? usual : options.access}));
  TRY(show(options.is_json ? format_verdict_json(verdict) : format_verdict(verdict)));
  return verdict.answer == Answer::kMay ? kFound : verdict.answer == Answer::kMayNot ? kNotFound : kCannotSay;
}

int status_of(const Error& error) { return error.code == VIR_ERR_INVALID_ARG ? kWrongUsage : kNotFound; }

// In a process of its own: what a container has mounted may never answer.
Result<int> explain_in_time(const Options& options, const std::vector<std::string>& words) {
  const pid_t pid = ::fork();
  if (pid < 0) return sys_fail("fork");
  if (pid == 0) {
    const auto status = show_verdict(options, words);
    if (!status) complain("error: " + status.error().text);
    ::_exit(status ? *status : status_of(status.error()));
  }
  const auto child = TRY(kernel::open_process(pid));
  const auto status = TRY(kernel::wait_process(child, kExplainLimitMs));
  if (status && WIFEXITED(*status)) return WEXITSTATUS(*status);
  (void)kernel::send_signal(child, SIGKILL);
  return fail(VIR_ERR_OPERATION_TIMEOUT, "what the process has mounted does not answer in " +
                                             std::to_string(kExplainLimitMs / 1000) + " seconds");
}

Result<int> run(int argc, char** argv) {
  const Options options = TRY(parse_options(argc, argv));
  if (options.is_help || options.is_version)
    return exec::say(options.is_help ? kUsage : "virt-userns-showinfo " VIRTUSERNS_VERSION "\n");
  if (options.is_tree) return show_tree(options);
  const auto& command = options.words.front();
  const std::vector<std::string> words(options.words.begin() + 1, options.words.end());
  if (command == "files") return show_files(options, words);
  if (command == "ps") return show_processes(options, words);
  if (command == "config") return show_config(options, words);
  if (command == "map") return show_map(options, words);
  if (command == "explain") return explain_in_time(options, words);
  return fail(VIR_ERR_INVALID_ARG, quote(command) + " is no command; see 'virt-userns-showinfo --help'");
}

}  // namespace
}  // namespace virtuserns::showinfo

int main(int argc, char** argv) {
  using namespace virtuserns;
  return exec::run_program("virt-userns-showinfo", argc, argv, showinfo::run, showinfo::status_of);
}
