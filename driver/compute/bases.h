// The store of bases (images.h), as instances use it: what is there, who needs it, and what may go.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/compute/images.h"

namespace virtuserns::compute {

class Bases {
 public:
  [[nodiscard]] static Result<Bases> open(StoreOptions options);

  // Its directory, of which this is a use. kImageMissing: it is not in the cache. kImageTooLarge: it has more bytes than that; 0: any.
  [[nodiscard]] Result<std::string> find(const std::string& key, std::uint64_t limit_bytes = 0) const;
  // Makes it of `file`, which stays the caller's, unless it is there. kImageRefused says what is wrong with the image; kImageTooLarge:
  // ImageSource::limit_bytes. Its bytes.
  [[nodiscard]] Result<std::uint64_t> add(const std::string& key, const Fd& file, const std::string& format,
                                          std::optional<std::uint64_t> limit_bytes) const;
  [[nodiscard]] Result<void> hold(const std::string& key, const std::string& instance) const;
  void release(const std::string& key, const std::string& instance) const;
  [[nodiscard]] Result<void> release_all(const std::string& instance) const;
  void stop() const { store_.stop(); }  // no more are made
  [[nodiscard]] Result<std::vector<Base>> list() const { return store_.list(); }
  // Of those that no instance needs.
  [[nodiscard]] Result<std::vector<std::string>> sweep(const SweepLimits& limits) const {
    return store_.sweep(limits);
  }

  [[nodiscard]] const std::string& program() const { return program_; }

 private:
  Bases(ImageStore store, std::string program) : store_(std::move(store)), program_(std::move(program)) {}
  ImageStore store_;
  std::string program_;
};

}  // namespace virtuserns::compute
