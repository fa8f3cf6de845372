#include "driver/compute/bases.h"

#include <unistd.h>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

// Checked where it came in.
Uuid uuid_of(const std::string& instance) { return parse_uuid(instance).value_or(Uuid()); }

}  // namespace

Result<Bases> Bases::open(StoreOptions options) {
  auto program = options.program;
  return Bases(TRY(ImageStore::open(std::move(options))), std::move(program));
}

Result<std::string> Bases::find(const std::string& key, std::uint64_t limit_bytes) const {
  auto found = TRY(store_.find(key, limit_bytes));
  if (!found) return fail(kImageMissing, "image " + quote(key) + " is not in the cache: add it first");
  return *std::move(found);
}

Result<std::uint64_t> Bases::add(const std::string& key, const Fd& file, const std::string& format,
                                 std::optional<std::uint64_t> limit_bytes) const {
  // What was checked, and not what has its name by now.
  const auto path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(file.get());
  const auto made = store_.get(key, {path, format, false, limit_bytes});
  if (!made) {
    auto error = made.error();
    const bool is_the_images = error.sys_errno != ENOSPC && error.code != VIR_ERR_OPERATION_TIMEOUT &&
                               error.code != kUnavailable && error.code != kImageTooLarge;
    if (is_the_images) error.code = kImageRefused;
    return error;
  }
  for (const auto& base : TRY(store_.list()))
    if (base.key == key) return base.bytes;
  return std::uint64_t{0};
}

Result<void> Bases::hold(const std::string& key, const std::string& instance) const {
  return store_.hold(key, uuid_of(instance));
}

void Bases::release(const std::string& key, const std::string& instance) const {
  if (const auto released = store_.release(key, uuid_of(instance)); !released)
    log_warning("compute", "image " + quote(key) + " stays in use: " + released.error().text);
}

Result<void> Bases::release_all(const std::string& instance) const {
  for (const auto& base : TRY(store_.list()))
    for (const auto& holder : base.holders)
      if (holder == uuid_of(instance)) TRY(store_.release(base.key, holder), "release image " + quote(base.key));
  return {};
}

}  // namespace virtuserns::compute
