#include "conf/password.h"

#include <crypt.h>
#include <gtest/gtest.h>

namespace virtuserns {
namespace {

bool fits(const std::string& password, const std::string& hash) {
  crypt_data state{};
  const char* made = ::crypt_rn(password.c_str(), hash.c_str(), &state, sizeof state);
  return made && hash == made;
}

TEST(Password, ItsHashIsWhatLoginsCompareWith) {
  for (const std::string& password :
       {std::string("secret"), std::string(""), std::string("\xc3\xa4 and blanks"), std::string(511, 'x')}) {
    const auto hash = hash_password(password);
    ASSERT_TRUE(hash) << password;
    EXPECT_TRUE(hash->starts_with("$6$"));
    EXPECT_TRUE(fits(password, *hash)) << password;
    EXPECT_FALSE(fits(password + "!", *hash)) << password;
    EXPECT_NE(*hash, *hash_password(password)) << "a salt of its own";
    EXPECT_TRUE(validate_password("root", *hash, PasswordForm::kHashed));
  }
}

TEST(Password, WhatBreaksTheFileIsRefusedWithoutRepeatingIt) {
  EXPECT_TRUE(validate_password("anna", "a:b", PasswordForm::kPlain));
  EXPECT_TRUE(validate_password("anna", "!", PasswordForm::kHashed));
  for (const std::string& user :
       {std::string(), std::string("a:b"), std::string("a\nroot"), std::string("a\0b", 3), std::string(257, 'a')})
    EXPECT_FALSE(validate_password(user, "x", PasswordForm::kPlain)) << user;
  for (const std::string& password : {std::string("se\ncret"), std::string("se\0cret", 7), std::string(512, 's')}) {
    const auto refused = validate_password("anna", password, PasswordForm::kPlain);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, VIR_ERR_INVALID_ARG);
    EXPECT_EQ(refused.error().text.find("cret"), std::string::npos) << refused.error().text;
  }
  for (const std::string& hash : {std::string(), std::string("$6$a:0:"), std::string("a\nroot::"), std::string("a b"),
                                  std::string("\xc3\xa4"), std::string(384, 'a')})
    EXPECT_FALSE(validate_password("anna", hash, PasswordForm::kHashed)) << hash;
}

}  // namespace
}  // namespace virtuserns
