// refuse_kernel_map against the kernel: thousands of random maps are written to the uid_map of a new user namespace,
// and the two must agree on each.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "conf/idmap.h"

using namespace virtuserns;

namespace {

struct Random {
  std::mt19937 engine;
  std::uint32_t operator()() { return static_cast<std::uint32_t>(engine()); }
};

// A child in a user namespace of its own that waits to be killed.
pid_t child_in_new_namespace() {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    const char answer = ::unshare(CLONE_NEWUSER) == 0 ? 'y' : 'n';
    (void)!::write(ready[1], &answer, 1);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char answer = 'n';
  (void)!::read(ready[0], &answer, 1);
  ::close(ready[0]);
  if (answer == 'y') return child;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return -1;
}

// Ids crowd around the places where rules begin to matter.
std::uint32_t random_id(Random& random) {
  switch (random() % 6) {
    case 0:
      return random() % 20;
    case 1:
      return 0xffffffffu - random() % 6;
    case 2:
      return 0x7fffffffu + random() % 4;
    case 3:
      return 1000 + random() % 50;
    default:
      return random();
  }
}

IdMapLines random_map(Random& random) {
  IdMapLines lines;
  const std::size_t count = random() % 30 == 0 ? 335 + random() % 10 : random() % 6;
  const bool is_orderly = random() % 2 == 0;
  std::uint32_t next = random() % 3;
  for (std::size_t i = 0; i < count; ++i) {
    IdMapLine line{random_id(random), random_id(random), random() % 8 == 0 ? random_id(random) : random() % 30};
    if (is_orderly || count > 10)
      line = {next, 100'000 + next, 1 + static_cast<std::uint32_t>(random() % 5)}, next += line.count;
    lines.push_back(line);
  }
  return lines;
}

}  // namespace

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("needs root");
    return 77;
  }
  Random random{std::mt19937(argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 20140)};
  int accepted = 0, wrong = 0;
  constexpr int kMaps = 4000;
  pid_t child = -1;
  for (int i = 0; i < kMaps; ++i) {
    if (child < 0) child = child_in_new_namespace();
    if (child < 0) {
      std::puts("user namespaces are not available");
      return 77;
    }
    const auto lines = random_map(random);
    const std::string text = format_kernel_map(lines);
    const std::string path = "/proc/" + std::to_string(child) + "/uid_map";
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    // The kernel takes a map in one write of less than a page; a longer one is refused whatever it says.
    const bool says_yes = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && !text.empty();
    ::close(fd);
    const auto refusal = refuse_kernel_map(lines);
    const bool is_too_long = text.size() >= static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (says_yes == refusal.has_value() && !(is_too_long && !says_yes)) {
      ++wrong;
      std::printf("kernel says %s, we say %s:\n%s\n", says_yes ? "yes" : "no", refusal ? refusal->c_str() : "yes",
                  text.substr(0, 400).c_str());
    }
    if (says_yes) {
      ++accepted;
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      child = -1;  // a map can be written once
    }
  }
  if (child > 0) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  std::printf("%d maps, %d accepted, %d disagreements\n", kMaps, accepted, wrong);
  return wrong == 0 && accepted > 100 ? 0 : 1;
}
