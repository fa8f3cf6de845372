#include "driver/compute/spares.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/disk.h"

namespace virtuserns::compute {
namespace {

constexpr auto kQuiet = std::chrono::milliseconds(300);  // the instance that took one is to have the processor first

void remove_file(const std::string& path) {
  if (!path.empty()) (void)::unlink(path.c_str());
}

}  // namespace

Result<std::unique_ptr<Spares>> Spares::open(std::string folder) {
  TRY(make_directories(folder, 0700));
  for (const auto& name : TRY(list_directory(folder))) remove_file(folder + "/" + name);
  std::unique_ptr<Spares> spares(new Spares(std::move(folder)));
  spares->thread_ = std::thread([self = spares.get()] { self->run(); });
  return spares;
}

Spares::~Spares() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
  for (const auto& spare : spares_) remove_file(spare.path);
}

bool Spares::take(std::uint64_t bytes, const std::string& path) {
  std::string found;
  {
    const std::lock_guard lock(mutex_);
    const auto known =
        std::find_if(spares_.begin(), spares_.end(), [&](const auto& spare) { return spare.bytes == bytes; });
    if (known != spares_.end()) {
      found = std::move(known->path);
      spares_.erase(known);
    }
    spares_.push_front({bytes, ""});
    if (spares_.size() > kMostSizes) {
      remove_file(spares_.back().path);
      spares_.pop_back();
    }
  }
  changed_.notify_all();
  if (found.empty()) return false;
  if (::rename(found.c_str(), path.c_str()) == 0) return true;
  remove_file(found);
  return false;
}

void Spares::run() {
  std::uint64_t number = 0;
  std::unique_lock lock(mutex_);
  const auto is_wanted = [](const Spare& spare) { return spare.path.empty(); };
  while (!is_ending_) {
    if (std::none_of(spares_.begin(), spares_.end(), is_wanted)) {
      changed_.wait(lock);
      continue;
    }
    if (changed_.wait_for(lock, kQuiet, [&] { return is_ending_; })) break;
    const auto wanted = std::find_if(spares_.begin(), spares_.end(), is_wanted);
    if (wanted == spares_.end()) continue;
    const auto bytes = wanted->bytes;
    const auto path = folder_ + "/" + std::to_string(::getpid()) + "-" + std::to_string(++number);
    lock.unlock();
    const auto made = format_disk(path, bytes);
    if (!made) log_warning("compute", "no disk could be made ahead: " + made.error().text);
    lock.lock();
    const auto waiting = std::find_if(spares_.begin(), spares_.end(),
                                      [&](const auto& spare) { return spare.bytes == bytes && is_wanted(spare); });
    if (waiting == spares_.end())
      remove_file(path);  // nobody has asked for this size lately
    else if (made)
      waiting->path = path;
    else
      spares_.erase(waiting);  // until somebody asks again
  }
}

}  // namespace virtuserns::compute
