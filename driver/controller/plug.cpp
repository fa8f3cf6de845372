#include "driver/controller/plug.h"

namespace virtuserns::controller {

std::string place_of(const ParentStep& step) {
  return std::visit(
      [](const auto& s) -> std::string {
        if constexpr (requires { s.guest_name; })
          return s.guest_name;
        else if constexpr (requires { s.target; })
          return s.target;
        else
          return {};
      },
      step);
}

std::string link_of(const InsideStep& step) {
  return std::visit(
      [](const auto& s) -> std::string {
        if constexpr (requires { s.device; })
          return s.device;
        else
          return {};
      },
      step);
}

}  // namespace virtuserns::controller
