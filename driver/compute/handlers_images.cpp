// The cache of images, and what becomes one.
#include <fcntl.h>
#include <sys/stat.h>

#include <chrono>

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "driver/compute/handlers.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

// A file of the client's: it may name only what is its own, and no link, FIFO or device.
Result<Fd> open_of_peer(const Call& call, int flags) {
  const auto path = TRY(call.params.text("path"));
  if (!path.starts_with('/')) return fail(VIR_ERR_INVALID_ARG, "params.path: needs an absolute path");
  const auto not_opened = [&] {
    auto error = sys_fail("open " + quote(path));
    error.code = VIR_ERR_INVALID_ARG;
    return error;
  };
  // Looked at before it is opened: opening alone starts a watchdog.
  const Fd place(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!place) return not_opened();
  struct stat found {};
  if (::fstat(place.get(), &found) != 0) return sys_fail("look at " + quote(path));
  if (!S_ISREG(found.st_mode) || (found.st_uid != call.peer.uid && call.peer.uid != 0))
    return fail(VIR_ERR_INVALID_ARG, quote(path) + " is no regular file of the caller's own");
  Fd file(
      ::open(("/proc/self/fd/" + std::to_string(place.get())).c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file) return not_opened();
  return file;
}

Result<Json> instance_snapshot(const Call& call) {
  const auto output = TRY(open_of_peer(call, O_WRONLY));
  const auto packed = TRY(call.compute().snapshot(TRY(call.uuid()), output));
  return Json{{"format", std::string(packed.format)}, {"bytes", packed.bytes}};
}

Result<std::string> image_key(const Call& call) {
  // Checked as part of an image; any format does for that.
  const auto key = TRY(call.params.text("key", 200));
  const Json named = {{"key", key}, {"format", "raw"}};
  return TRY(read_image_ref(TRY(Object::of(named, "params")))).key;
}

Result<Json> image_has(const Call& call) {
  const auto found = call.compute().guests().find_image(TRY(image_key(call)), 0);
  if (!found && found.error().code != kImageMissing) return found.error();
  return Json{{"present", static_cast<bool>(found)}};
}

Result<Json> image_add(const Call& call) {
  const auto image = TRY(read_image_ref(call.params));
  const auto file = TRY(open_of_peer(call, O_RDONLY));
  const auto bytes = TRY(call.compute().images().add(image.key, file, image.format, TRY(call.limit_bytes())));
  return Json{{"bytes", bytes}};
}

Result<Json> image_list(const Call& call) {
  Json all = Json::array();
  for (const auto& base : TRY(call.compute().images().list())) {
    Json holders = Json::array();
    for (const auto& holder : base.holders) holders.push_back(format_uuid(holder));
    all.push_back({{"key", base.key}, {"bytes", base.bytes}, {"last_used", base.used_at}, {"holders", holders}});
  }
  return all;
}

Result<Json> image_sweep(const Call& call) {
  SweepLimits limits;
  if (call.params.has("max_mb")) limits.max_bytes = TRY(call.params.number("max_mb", 0, kMaxMegabytes)) << 20;
  if (call.params.has("max_age_s"))
    limits.max_age = std::chrono::seconds(TRY(call.params.number("max_age_s", 0, kMaxSeconds * 3650)));
  limits.keep_unused_for =
      std::chrono::seconds(TRY(call.params.number_or("keep_unused_for_s", 0, 0, kMaxSeconds * 3650)));
  const auto removed = TRY(call.compute().images().sweep(limits));
  return Json{{"removed", removed}};
}

}  // namespace

std::span<const Method> image_methods() {
  static const std::vector<Method> all = {
      {"image.has", image_has, {"key"}},
      {"image.add", image_add, {"key", "format", "path", "max_mb"}, "images"},
      {"image.list", image_list, {}},
      {"image.sweep", image_sweep, {"max_mb", "max_age_s", "keep_unused_for_s"}},
      {"instance.snapshot", instance_snapshot, {"uuid", "path"}, "snapshot"},
  };
  return all;
}

}  // namespace virtuserns::compute
