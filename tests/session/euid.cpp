// Prints the real and the effective user id; static, so that it runs in any root filesystem.
#include <unistd.h>

#include <cstdio>

int main() {
  std::printf("%u %u\n", ::getuid(), ::geteuid());
  return 0;
}
