// XDR (RFC 4506), bounded: one aggregate struct describes a message, and serves both ways.
//
//   struct DomainName { Uuid... };           any aggregate of at most 16 fields, without base classes
//   auto bytes = xdr::encode(value);
//   Result<T> value = xdr::decode<T>(bytes);
//
// | C++                                | XDR                                                              |
// |------------------------------------|------------------------------------------------------------------|
// | (u)int32_t, (u)int64_t, double     | (unsigned) int, (unsigned) hyper, double                         |
// | bool, enums                        | int (any non-zero is true, as XDR in C has it)                   |
// | std::array<uint8_t, N>             | opaque[N]                                                        |
// | std::string, Limited<string, N>    | string<N>: no NUL inside; N is kMaxText without Limited          |
// | std::vector<uint8_t>               | opaque<N>                                                        |
// | std::vector<T>, Limited<vector, N> | T<N>                                                             |
// | std::optional<T>                   | T*: flag, value. Any non-zero flag is taken (go-libvirt sends 0x01000000) |
// | std::variant<...>                  | union: int discriminant (index + VariantBase), arm; no default   |
// | CharArray<N>                       | char[N] in rpcgen's sense: four bytes a character                |
//
// The reader trusts nothing: counts are checked against the field's limit, the bytes that are left, and one budget of
// memory for the whole message, before anything is allocated. Padding is ignored. Trailing bytes are left to the
// caller (decode ignores them, as libvirt does; decode_exact refuses them).
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::xdr {

inline constexpr std::size_t kMaxText = 4'194'304;   // libvirt's VIR_NET_MESSAGE_STRING_MAX
inline constexpr std::size_t kMaxItems = 1'048'576;  // for fields without a limit of their own
inline constexpr std::size_t kDefaultBudget = 64 * 1024 * 1024;

// A string or vector with at most N elements on the wire. Behaves as its container.
template <class Container, std::size_t N>
struct Limited : Container {
  using Container::Container;
  Limited() = default;
  Limited(Container value) : Container(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  static constexpr std::size_t kLimit = N;
};
template <std::size_t N>
using Text = Limited<std::string, N>;
template <class T, std::size_t N>
using List = Limited<std::vector<T>, N>;

template <std::size_t N>
struct CharArray {
  std::string text;  // at most N - 1 characters
  static constexpr std::size_t kSize = N;
};

// The discriminant of the first alternative of a variant.
template <class Variant>
struct VariantBase {
  static constexpr std::int32_t kValue = 0;
};

namespace detail {

struct Any {
  template <class T>
  operator T() const;
};  // NOLINT: converts to the type of any field
template <class T, class... Args>
concept BraceConstructible = requires {
  T{std::declval<Args>()...};
};

template <class T, class... Args>
consteval std::size_t field_count() {
  if constexpr (sizeof...(Args) > 16)
    return 0;
  else if constexpr (BraceConstructible<T, Args..., Any>)
    return field_count<T, Args..., Any>();
  else
    return sizeof...(Args);
}

// The fields of an aggregate as a tuple of references.
template <class T>
auto tie_fields(T& s) {
  constexpr std::size_t n = field_count<std::remove_const_t<T>>();
  static_assert(n <= 16, "split the struct: at most 16 fields");
  if constexpr (n == 0)
    return std::tie();
  else if constexpr (n == 1) {
    auto& [a] = s;
    return std::tie(a);
  } else if constexpr (n == 2) {
    auto& [a, b] = s;
    return std::tie(a, b);
  } else if constexpr (n == 3) {
    auto& [a, b, c] = s;
    return std::tie(a, b, c);
  } else if constexpr (n == 4) {
    auto& [a, b, c, d] = s;
    return std::tie(a, b, c, d);
  } else if constexpr (n == 5) {
    auto& [a, b, c, d, e] = s;
    return std::tie(a, b, c, d, e);
  } else if constexpr (n == 6) {
    auto& [a, b, c, d, e, f] = s;
    return std::tie(a, b, c, d, e, f);
  } else if constexpr (n == 7) {
    auto& [a, b, c, d, e, f, g] = s;
    return std::tie(a, b, c, d, e, f, g);
  } else if constexpr (n == 8) {
    auto& [a, b, c, d, e, f, g, h] = s;
    return std::tie(a, b, c, d, e, f, g, h);
  } else if constexpr (n == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = s;
    return std::tie(a, b, c, d, e, f, g, h, i);
  } else if constexpr (n == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j);
  } else if constexpr (n == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k);
  } else if constexpr (n == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l);
  } else if constexpr (n == 13) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m);
  } else if constexpr (n == 14) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o);
  } else if constexpr (n == 15) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p);
  } else {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q);
  }
}

template <class T>
inline constexpr bool kIsOptional = false;
template <class T>
inline constexpr bool kIsOptional<std::optional<T>> = true;
template <class T>
inline constexpr bool kIsVariant = false;
template <class... T>
inline constexpr bool kIsVariant<std::variant<T...>> = true;
template <class T>
inline constexpr bool kIsArray = false;
template <class T, std::size_t N>
inline constexpr bool kIsArray<std::array<T, N>> = true;
template <class T>
inline constexpr bool kIsCharArray = false;
template <std::size_t N>
inline constexpr bool kIsCharArray<CharArray<N>> = true;

template <class T>
consteval std::size_t limit_of(std::size_t fallback) {
  if constexpr (requires { T::kLimit; })
    return T::kLimit;
  else
    return fallback;
}

template <class T>
concept StringLike = std::derived_from<T, std::string>;
template <class T>
concept VectorLike = requires {
  typename T::value_type;
}
&&std::derived_from<T, std::vector<typename T::value_type>>;

// The least number of bytes an element of a list takes: a count that cannot fit is refused before allocation.
template <class T>
consteval std::size_t least_bytes() {
  if constexpr (sizeof(T) >= 8 && std::is_arithmetic_v<T>)
    return 8;
  else
    return 4;
}

}  // namespace detail

class Writer {
 public:
  explicit Writer(std::vector<std::uint8_t>& out) : out_(out) {}

  void u32(std::uint32_t v) {
    // One byte at a time: an inserted range makes g++ 12 warn of an overflow that is not there, at some levels only.
    for (int shift = 24; shift >= 0; shift -= 8) out_.push_back(static_cast<std::uint8_t>(v >> shift));
  }
  void u64(std::uint64_t v) {
    u32(static_cast<std::uint32_t>(v >> 32));
    u32(static_cast<std::uint32_t>(v));
  }
  void opaque(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    out_.insert(out_.end(), bytes, bytes + size);
    out_.resize(out_.size() + (4 - size % 4) % 4);
  }

  template <class T>
  void write(const T& v) {
    if constexpr (std::is_same_v<T, bool>)
      u32(v ? 1 : 0);
    else if constexpr (std::is_enum_v<T>)
      u32(static_cast<std::uint32_t>(v));
    else if constexpr (std::is_same_v<T, double>)
      u64(std::bit_cast<std::uint64_t>(v));
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 4)
      u32(static_cast<std::uint32_t>(v));
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 8)
      u64(static_cast<std::uint64_t>(v));
    else if constexpr (detail::StringLike<T>) {
      u32(static_cast<std::uint32_t>(v.size()));
      opaque(v.data(), v.size());
    } else if constexpr (detail::kIsCharArray<T>) {
      for (std::size_t i = 0; i < T::kSize; ++i)
        u32(i < v.text.size() && i + 1 < T::kSize ? static_cast<std::uint32_t>(static_cast<signed char>(v.text[i]))
                                                  : 0);
    } else if constexpr (detail::kIsArray<T>) {
      static_assert(sizeof(typename T::value_type) == 1);
      opaque(v.data(), v.size());
    } else if constexpr (detail::kIsOptional<T>) {
      u32(v ? 1 : 0);
      if (v) write(*v);
    } else if constexpr (detail::kIsVariant<T>) {
      u32(static_cast<std::uint32_t>(static_cast<std::int32_t>(v.index()) + VariantBase<T>::kValue));
      std::visit([this](const auto& arm) { this->write(arm); }, v);
    } else if constexpr (detail::VectorLike<T>) {
      u32(static_cast<std::uint32_t>(v.size()));
      if constexpr (sizeof(typename T::value_type) == 1 && !std::is_same_v<typename T::value_type, bool>)
        opaque(v.data(), v.size());
      else
        for (const auto& item : v) write(static_cast<const typename T::value_type&>(item));
    } else {
      static_assert(std::is_aggregate_v<T>, "no XDR form for this type");
      std::apply([this](const auto&... field) { (this->write(field), ...); }, detail::tie_fields(v));
    }
  }

 private:
  std::vector<std::uint8_t>& out_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes, std::size_t budget = kDefaultBudget)
      : rest_(bytes), budget_(budget) {}

  [[nodiscard]] bool failed() const { return failure_ != nullptr; }
  [[nodiscard]] const char* failure() const { return failure_; }
  [[nodiscard]] std::size_t left() const { return rest_.size(); }

  std::uint32_t u32() {
    if (rest_.size() < 4) {
      refuse("message is too short");
      return 0;
    }
    const std::uint32_t v = static_cast<std::uint32_t>(rest_[0]) << 24 | static_cast<std::uint32_t>(rest_[1]) << 16 |
                            static_cast<std::uint32_t>(rest_[2]) << 8 | rest_[3];
    rest_ = rest_.subspan(4);
    return v;
  }
  std::uint64_t u64() {
    const std::uint64_t high = u32();
    return high << 32 | u32();
  }

  template <class T>
  void read(T& v) {
    if (failed()) return;
    if constexpr (std::is_same_v<T, bool>)
      v = u32() != 0;
    else if constexpr (std::is_enum_v<T>)
      v = static_cast<T>(u32());
    else if constexpr (std::is_same_v<T, double>)
      v = std::bit_cast<double>(u64());
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 4)
      v = static_cast<T>(u32());
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 8)
      v = static_cast<T>(u64());
    else if constexpr (detail::StringLike<T>)
      read_string(v);
    else if constexpr (detail::kIsCharArray<T>) {
      for (std::size_t i = 0; i < T::kSize && !failed(); ++i)
        if (const auto c = static_cast<char>(u32()); c != 0) v.text += c;
    } else if constexpr (detail::kIsArray<T>) {
      static_assert(sizeof(typename T::value_type) == 1);
      if (const auto bytes = take(v.size()); !failed()) std::memcpy(v.data(), bytes.data(), v.size());
    } else if constexpr (detail::kIsOptional<T>) {
      if (u32() != 0 && !failed())
        read(v.emplace());
      else
        v.reset();
    } else if constexpr (detail::kIsVariant<T>) {
      const auto arm = static_cast<std::int64_t>(static_cast<std::int32_t>(u32())) - VariantBase<T>::kValue;
      if (!failed()) read_arm(v, arm, std::make_index_sequence<std::variant_size_v<T>>());
    } else if constexpr (detail::VectorLike<T>)
      read_vector(v);
    else {
      static_assert(std::is_aggregate_v<T>, "no XDR form for this type");
      std::apply([this](auto&... field) { (this->read(field), ...); }, detail::tie_fields(v));
    }
  }

 private:
  void refuse(const char* why) {
    if (!failure_) failure_ = why;
    rest_ = {};
  }

  // `size` bytes and their padding. The padding's value is nobody's business, but it must be there.
  std::span<const std::uint8_t> take(std::size_t size) {
    const std::size_t padded = (size + 3) / 4 * 4;
    if (rest_.size() < padded) {
      refuse("message is too short");
      return {};
    }
    const auto bytes = rest_.first(size);
    rest_ = rest_.subspan(padded);
    return bytes;
  }

  bool spend(std::size_t bytes) {
    if (bytes > budget_) {
      refuse("message takes too much memory");
      return false;
    }
    budget_ -= bytes;
    return true;
  }

  template <class T>
  void read_string(T& v) {
    const std::size_t size = u32();
    if (size > detail::limit_of<T>(kMaxText)) return refuse("string is too long");
    const auto bytes = take(size);
    if (failed() || !spend(size)) return;
    if (std::memchr(bytes.data(), 0, bytes.size()) != nullptr) return refuse("string holds a NUL");
    v.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  template <class T>
  void read_vector(T& v) {
    using Item = typename T::value_type;
    const std::size_t count = u32();
    if constexpr (sizeof(Item) == 1 && !std::is_same_v<Item, bool>) {
      if (count > detail::limit_of<T>(kMaxText)) return refuse("opaque is too long");
      const auto bytes = take(count);
      if (failed() || !spend(count)) return;
      v.assign(bytes.begin(), bytes.end());
    } else {
      if (count > detail::limit_of<T>(kMaxItems)) return refuse("array is too long");
      // An item of an empty struct takes no bytes; nobody sends lists of those.
      if (count > rest_.size() / detail::least_bytes<Item>())
        return refuse("array claims more than the message holds");
      if (!spend(count * sizeof(Item))) return;
      v.clear();
      v.reserve(count);
      for (std::size_t i = 0; i < count && !failed(); ++i) {
        Item item{};
        read(item);
        v.push_back(std::move(item));
      }
    }
  }

  template <class V, std::size_t... I>
  void read_arm(V& v, std::int64_t arm, std::index_sequence<I...>) {
    const bool is_known =
        ((arm == static_cast<std::int64_t>(I) ? (read(v.template emplace<I>()), true) : false) || ...);
    if (!is_known) refuse("unknown arm of a union");
  }

  std::span<const std::uint8_t> rest_;
  std::size_t budget_;
  const char* failure_ = nullptr;
};

template <class T>
[[nodiscard]] std::vector<std::uint8_t> encode(const T& value) {
  std::vector<std::uint8_t> bytes;
  Writer(bytes).write(value);
  return bytes;
}

template <class T>
[[nodiscard]] Result<T> decode(std::span<const std::uint8_t> bytes, std::size_t budget = kDefaultBudget) {
  T value{};
  Reader reader(bytes, budget);
  reader.read(value);
  if (reader.failed()) return fail(VIR_ERR_RPC, std::string("decode message: ") + reader.failure());
  return value;
}

template <class T>
[[nodiscard]] Result<T> decode_exact(std::span<const std::uint8_t> bytes, std::size_t budget = kDefaultBudget) {
  T value{};
  Reader reader(bytes, budget);
  reader.read(value);
  if (reader.failed()) return fail(VIR_ERR_RPC, std::string("decode message: ") + reader.failure());
  if (reader.left() != 0) return fail(VIR_ERR_RPC, "decode message: trailing bytes");
  return value;
}

}  // namespace virtuserns::xdr
