// TypedParam: libvirt's virTypedParameter as a value. The alternative that is held is the wire type.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace virtuserns {

// In the order of VIR_TYPED_PARAM_INT (1) .. VIR_TYPED_PARAM_STRING (7).
using TypedValue = std::variant<std::int32_t, std::uint32_t, std::int64_t, std::uint64_t, double, bool, std::string>;

struct TypedParam {
  std::string field;
  TypedValue value;
  bool operator==(const TypedParam&) const = default;
};

using TypedParams = std::vector<TypedParam>;

}  // namespace virtuserns
