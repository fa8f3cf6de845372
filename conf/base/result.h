// Result<T>: a value or the reason why there is none.
//
// Failure is the normal case in this program (EPERM, EBUSY, bad XML) and it has to cross process and wire
// boundaries as data, so it is a value and [[nodiscard]], not an exception. Error::code is a libvirt
// virErrorNumber (libvirt/virterror.h): it is what a client of virtusernsd is shown.
#pragma once

#include <libvirt/virterror.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace virtuserns {

struct Error {
  int code = VIR_ERR_INTERNAL_ERROR;  // virErrorNumber
  int sys_errno = 0;                  // 0 when no system call was involved
  std::string text;                   // lower case, no full stop, outermost context first

  // Puts `context` in front: "context: text".
  [[nodiscard]] Error with_context(std::string_view context) && {
    if (!context.empty()) text.insert(0, std::string(context) + ": ");
    return std::move(*this);
  }
  [[nodiscard]] Error with_context() && { return std::move(*this); }
};

template <class T>
class [[nodiscard]] Result {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): `return value;` and `return fail(...)` are the point
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  explicit operator bool() const { return state_.index() == 0; }
  [[nodiscard]] T& value() & { return *std::get_if<0>(&state_); }
  [[nodiscard]] const T& value() const& { return *std::get_if<0>(&state_); }
  [[nodiscard]] T value() && { return std::move(*std::get_if<0>(&state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }
  [[nodiscard]] const Error& error() const& { return *std::get_if<1>(&state_); }
  [[nodiscard]] Error error() && { return std::move(*std::get_if<1>(&state_)); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}  // NOLINT

  explicit operator bool() const { return !failed_; }
  void value() const {}
  [[nodiscard]] const Error& error() const& { return error_; }
  [[nodiscard]] Error error() && { return std::move(error_); }

 private:
  Error error_;
  bool failed_ = false;
};

// An error of our own making.
[[nodiscard]] inline Error fail(int code, std::string text) { return Error{code, 0, std::move(text)}; }

// An error of a system call: appends the text of `err` (errno by default). Call it right after the system call.
[[nodiscard]] inline Error sys_fail(std::string text, int err = errno) {
  char buffer[128];
  // GNU strerror_r: thread-safe, and may return a static string instead of filling the buffer.
  text.append(": ").append(::strerror_r(err, buffer, sizeof buffer));
  return Error{VIR_ERR_SYSTEM_ERROR, err, std::move(text)};
}

}  // namespace virtuserns

#define VIRTUSERNS_CONCAT2(a, b) a##b
#define VIRTUSERNS_CONCAT(a, b) VIRTUSERNS_CONCAT2(a, b)
#define VIRTUSERNS_TRY(name, expr, ...)                                  \
  ({                                                                     \
    auto name = (expr);                                                  \
    if (!name) return std::move(name).error().with_context(__VA_ARGS__); \
    std::move(name).value();                                             \
  })

// TRY(expr) or TRY(expr, "context"): yields the value of a Result, or returns its Error (with the context in
// front) from the enclosing function, which must itself return a Result.
// Never in the braces of an initializer behind something else: g++ and clang do not destroy what was made of those members when it
// returns (tests/braces.py looks for it).
#define TRY(expr, ...) VIRTUSERNS_TRY(VIRTUSERNS_CONCAT(try_, __COUNTER__), expr __VA_OPT__(, ) __VA_ARGS__)
