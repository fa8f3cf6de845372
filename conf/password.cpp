#include "conf/password.h"

#include <crypt.h>
#include <string.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <memory>

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

Result<std::string> hash_password(const std::string& password) {
  static constexpr char kLetters[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::array<unsigned char, 16> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
    return sys_fail("get random bytes");
  std::string setting = "$6$";
  for (const auto byte : random) setting += kLetters[byte % 64];
  const auto state = std::make_unique<crypt_data>();  // 32 KiB
  // Not crypt_r: that one the sanitizers' run time has as well, without a libcrypt behind it.
  const char* made = ::crypt_rn(password.c_str(), setting.c_str(), state.get(), sizeof *state);
  std::string hash = made ? made : "";
  ::explicit_bzero(state.get(), sizeof *state);
  if (!hash.starts_with(setting)) return fail(VIR_ERR_INTERNAL_ERROR, "the password cannot be hashed (crypt)");
  return hash;
}

}  // namespace virtuserns
