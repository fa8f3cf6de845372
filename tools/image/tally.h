// What is counted of an archive, and how a child says it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "conf/base/result.h"
#include "tools/image/options.h"

namespace virtuserns::image {

class Tally {
 public:
  std::uint64_t entries = 0, bytes = 0;

  // `what`: "device node", "attribute 'trusted.x'"; some of the paths are kept as examples.
  void leave_out(const std::string& what, const std::string& path);
  [[nodiscard]] std::string encode() const;
  [[nodiscard]] static Result<Report> decode(const std::string& answer);

 private:
  struct Left {
    std::uint64_t count = 0;
    std::string examples;
  };
  std::map<std::string, Left> left_;
};

}  // namespace virtuserns::image
