// The plan's decoder: any bytes give a plan that is a container's, or an error.
#include <cstdlib>

#include "driver/controller/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto plan = virtuserns::decode_plan(std::span(data, size));
  if (!plan) return 0;
  if (plan->host_uid == 0) std::abort();
  (void)virtuserns::describe(*plan);
  const auto again = virtuserns::decode_plan(virtuserns::encode_plan(*plan));
  if (!again || virtuserns::describe(*again) != virtuserns::describe(*plan)) std::abort();
  return 0;
}
