// The image that a container was copied into, mounted while this lives.
#pragma once

#include <string>
#include <utility>

#include "conf/base/result.h"
#include "tools/convert/storage.h"

namespace virtuserns::convert {

class ImageMount {
 public:
  // `place` is made, in the workplace.
  [[nodiscard]] static Result<ImageMount> mount(const kernel::LoopDevice& device, Access access,
                                                const std::string& place);
  ImageMount(ImageMount&& other) noexcept : place_(std::exchange(other.place_, "")) {}
  ImageMount& operator=(ImageMount&&) = delete;
  ~ImageMount();
  [[nodiscard]] Result<void> unmount();

 private:
  explicit ImageMount(std::string place) : place_(std::move(place)) {}
  std::string place_;  // empty: not mounted
};

}  // namespace virtuserns::convert
