#include "driver/userns/password.h"

#include <crypt.h>
#include <string.h>
#include <sys/random.h>

#include <array>
#include <memory>

namespace virtuserns::userns {

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

}  // namespace virtuserns::userns
