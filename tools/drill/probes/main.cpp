// virtuserns-drill: the probes inside. One line for each: CLASS NAME held|failed|not-applicable|not-run DETAIL
//   virtuserns-drill            those that disturb nobody; exit status 1 when one failed
//   virtuserns-drill --all      all of them
//   virtuserns-drill NAME...    these
//   virtuserns-drill --list     CLASS NAME of each, and whom it may disturb; nothing is tried
//   virtuserns-drill --use-up   takes every inotify instance it gets, says how many, and keeps them
#include <dirent.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tools/drill/probes/probe.h"

namespace drill {

std::vector<int> descriptors_at_start;  // for the probe of descriptors, before anything of ours is open

namespace {

constexpr int kLimitMs = 20'000;

void note_descriptors() {
  DIR* directory = ::opendir("/proc/self/fd");
  if (!directory) return;
  while (const auto* entry = ::readdir(directory))
    if (const int fd = std::atoi(entry->d_name); entry->d_name[0] != '.' && fd != ::dirfd(directory))
      descriptors_at_start.push_back(fd);
  ::closedir(directory);
}

// One line of printable characters, whatever names the container has.
std::string printable(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    result += byte >= 0x20 && byte < 0x7f ? c : '?';
  }
  return result.substr(0, 300);
}

[[noreturn]] void run_child(const Probe& probe, int out) {
  const auto verdict = probe.run();
  const std::string text = static_cast<char>('0' + static_cast<int>(verdict.outcome)) + printable(verdict.detail);
  (void)!::write(out, text.data(), text.size());
  ::_exit(0);
}

Verdict run(const Probe& probe) {
  int pipe[2];
  if (::pipe2(pipe, 0) != 0) return failed("pipe: " + error_text(errno));
  const pid_t child = ::fork();
  if (child < 0) return failed("fork: " + error_text(errno));
  if (child == 0) {
    ::close(pipe[0]);
    run_child(probe, pipe[1]);
  }
  ::close(pipe[1]);
  std::string text;
  pollfd entry{pipe[0], POLLIN, 0};
  char buffer[512];
  ssize_t got = 0;
  bool is_late = false;
  while (!(is_late = ::poll(&entry, 1, kLimitMs) <= 0) && (got = ::read(pipe[0], buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<std::size_t>(got));
  ::close(pipe[0]);
  if (is_late) ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (is_late) return failed("no answer in time");
  if (text.empty() && WIFSIGNALED(status))
    return WTERMSIG(status) == SIGSYS ? held("killed by the filter")
                                      : failed("the probe died of signal " + std::to_string(WTERMSIG(status)));
  if (text.empty()) return failed("the probe said nothing");
  return {static_cast<Outcome>(text[0] - '0'), text.substr(1)};
}

// What the kernel counts for each user: when the container has none left, its host must still have some.
int use_up() {
  int instances = 0;
  while (::inotify_init1(IN_CLOEXEC) >= 0) ++instances;
  std::printf("%d inotify instances: %s\n", instances, error_text(errno).c_str());
  std::fflush(stdout);
  for (;;) ::pause();
}

const char* word(Outcome outcome) {
  constexpr const char* kWords[] = {"held", "failed", "not-applicable", "not-run"};
  return kWords[static_cast<int>(outcome)];
}

}  // namespace
}  // namespace drill

int main(int argc, char** argv) {
  using namespace drill;
  note_descriptors();
  if (argc == 2 && std::strcmp(argv[1], "--use-up") == 0) return use_up();
  std::vector<Probe> probes;
  add_process_probes(probes);
  add_mount_probes(probes);
  add_kernel_probes(probes);
  add_call_probes(probes);
  add_network_probes(probes);
  std::stable_sort(probes.begin(), probes.end(), [](const auto& a, const auto& b) { return a.group < b.group; });
  std::vector<std::string> wanted(argv + 1, argv + argc);
  const bool are_all = argc == 2 && wanted[0] == "--all";
  if (are_all) wanted.clear();
  if (argc == 2 && wanted[0] == "--list") {
    for (const auto& probe : probes)
      std::printf("%c %s%s%s\n", probe.group, probe.name.c_str(), probe.disturbs ? " " : "",
                  probe.disturbs ? probe.disturbs : "");
    return 0;
  }
  for (const auto& name : wanted)
    if (std::none_of(probes.begin(), probes.end(), [&](const auto& probe) { return probe.name == name; })) {
      std::fprintf(stderr, "virtuserns-drill: no probe '%s'; --list names them\n", name.c_str());
      return 2;
    }
  bool is_broken = false;
  for (const auto& probe : probes) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), probe.name) == wanted.end()) continue;
    const bool is_left_out = probe.disturbs && !are_all && wanted.empty();
    const auto verdict = is_left_out ? Verdict{Outcome::kNotRun, probe.disturbs} : run(probe);
    is_broken |= verdict.outcome == Outcome::kFailed;
    std::printf("%c %s %s %s\n", probe.group, probe.name.c_str(), word(verdict.outcome), verdict.detail.c_str());
    std::fflush(stdout);
  }
  return is_broken ? 1 : 0;
}
