// The talk's mywait: says who it is, leaves a file of that, and sleeps until it is ended. Static: it runs in any root.
#include <pwd.h>
#include <unistd.h>

#include <cstdio>
#include <string>

int main() {
  std::string user = std::to_string(::getuid());
  // The file itself, not the name service: a static program has none.
  if (std::FILE* accounts = std::fopen("/etc/passwd", "re")) {
    while (const passwd* entry = ::fgetpwent(accounts))
      if (entry->pw_uid == ::getuid()) {
        user = entry->pw_name;
        break;
      }
    std::fclose(accounts);
  }
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::string name = "sleeper-" + user + "@" + host;
  const std::string line = "[" + name + "] pid=" + std::to_string(::getpid()) + " uid=" + std::to_string(::getuid()) +
                           " gid=" + std::to_string(::getgid()) + "\n";
  std::FILE* file = std::fopen((name + ".info").c_str(), "we");
  if (!file || std::fputs(line.c_str(), file) < 0 || std::fclose(file) != 0) {
    std::perror((name + ".info").c_str());
    return 1;
  }
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
  for (;;) ::pause();
}
