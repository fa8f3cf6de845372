#include "conf/password.h"

#include <algorithm>

#include "conf/base/text.h"

namespace virtuserns {

namespace {

constexpr std::size_t kMaxUserBytes = 256;
constexpr std::size_t kMaxPasswordBytes = 511;  // of crypt(3)
constexpr std::size_t kMaxHashBytes = 383;      // the same

}  // namespace

Result<void> validate_password(const std::string& user, const std::string& password, PasswordForm form) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (user.empty() || user.size() > kMaxUserBytes || user.find(':') != std::string::npos ||
      std::any_of(user.begin(), user.end(), is_control))
    return fail(VIR_ERR_INVALID_ARG, "user " + quote(printable(user, kMaxUserBytes)) + " is no name of an account");
  if (form == PasswordForm::kPlain) {
    // Nobody could type the others.
    if (password.size() <= kMaxPasswordBytes && password.find_first_of(std::string("\0\n\r", 3)) == std::string::npos)
      return {};
    return fail(VIR_ERR_INVALID_ARG,
                "a password has at most " + std::to_string(kMaxPasswordBytes) + " bytes, and no end of line in it");
  }
  const bool is_hash =
      !password.empty() && password.size() <= kMaxHashBytes &&
      std::all_of(password.begin(), password.end(), [](char c) { return c > ' ' && c < 0x7f && c != ':'; });
  if (is_hash) return {};
  return fail(VIR_ERR_INVALID_ARG, "an encrypted password is what crypt(3) makes: at most " +
                                       std::to_string(kMaxHashBytes) +
                                       " printable characters without ':' and blanks");
}

}  // namespace virtuserns
