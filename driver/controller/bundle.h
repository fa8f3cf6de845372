// A tar (ustar) of bounded size, written front to back: names are ours, contents are whatever they are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::controller {

class Bundle {
 public:
  // `limit`: of all that add() takes. `at`: seconds since 1970, of every file.
  Bundle(const Fd& output, std::uint64_t limit, std::uint64_t at) : output_(output), limit_(limit), at_(at) {}

  // A file of mode 0600, root's. `name`: at most 99 bytes. False: there is no room for it any more, and it is left out.
  [[nodiscard]] Result<bool> add(const std::string& name, std::string_view content);
  // The last file, whatever the limit is, and the end.
  [[nodiscard]] Result<void> finish(const std::string& name, std::string_view content);
  [[nodiscard]] bool is_full() const { return is_full_; }

 private:
  [[nodiscard]] Result<void> put(const std::string& name, std::string_view content);

  const Fd& output_;
  const std::uint64_t limit_, at_;
  std::uint64_t size_ = 0;
  bool is_full_ = false;
};

}  // namespace virtuserns::controller
