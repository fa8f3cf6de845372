// Bytes as a file that has no name.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <span>

#include "conf/base/fd.h"

namespace virtuserns::test {

inline Fd memory_file(std::span<const std::uint8_t> bytes) {
  Fd file(::memfd_create("test", MFD_CLOEXEC));
  (void)!::write(file.get(), bytes.data(), bytes.size());
  return file;
}

}  // namespace virtuserns::test
