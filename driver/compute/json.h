// JSON from a client, which may be anything: every value is asked for by its type, and what is wrong is said by its path.
//
// Pure. Errors: VIR_ERR_INVALID_ARG, "params.instance.flavor.vcpus: needs a number from 1 to 4096".
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::compute {

using Json = nlohmann::json;

inline constexpr std::size_t kMaxText = 4096;
inline constexpr int kMaxJsonDepth = 32;

// No exception, no depth without end, no member twice. VIR_ERR_INVALID_ARG.
[[nodiscard]] Result<Json> parse_json(std::string_view text);
// One line; what is no UTF-8 becomes U+FFFD.
[[nodiscard]] std::string format_json(const Json& json);

// An object and where it stands. Refers to the Json, which has to live longer.
class Object {
 public:
  [[nodiscard]] static Result<Object> of(const Json& json, std::string path);

  [[nodiscard]] bool has(std::string_view key) const;  // there, and not null
  [[nodiscard]] Result<std::string> text(std::string_view key, std::size_t max_bytes = kMaxText) const;
  [[nodiscard]] Result<std::string> text_or(std::string_view key, std::string otherwise,
                                            std::size_t max_bytes = kMaxText) const;
  [[nodiscard]] Result<std::uint64_t> number(std::string_view key, std::uint64_t least, std::uint64_t most) const;
  [[nodiscard]] Result<std::uint64_t> number_or(std::string_view key, std::uint64_t otherwise, std::uint64_t least,
                                                std::uint64_t most) const;
  [[nodiscard]] Result<bool> flag(std::string_view key) const;
  [[nodiscard]] Result<bool> flag_or(std::string_view key, bool otherwise) const;
  [[nodiscard]] Result<Object> object(std::string_view key) const;
  [[nodiscard]] Result<std::optional<Object>> object_or_none(std::string_view key) const;
  [[nodiscard]] Result<std::vector<Object>> objects(std::string_view key, std::size_t most) const;  // missing: none
  [[nodiscard]] Result<std::vector<std::string>> texts(std::string_view key, std::size_t most) const;
  // Base64 (RFC 4648, with padding).
  [[nodiscard]] Result<std::string> bytes(std::string_view key, std::size_t max_bytes) const;
  // Text members of the object `key`; numbers and booleans become text. Missing: none.
  [[nodiscard]] Result<std::vector<std::pair<std::string, std::string>>> settings(std::string_view key,
                                                                                  std::size_t most) const;
  [[nodiscard]] std::vector<std::string> keys() const;
  [[nodiscard]] const Json& json() const { return *json_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  Object(const Json& json, std::string path) : json_(&json), path_(std::move(path)) {}
  [[nodiscard]] const Json* find(std::string_view key) const;
  [[nodiscard]] std::string name(std::string_view key) const;
  [[nodiscard]] Error wrong(std::string_view key, const std::string& needs) const;

  const Json* json_;
  std::string path_;
};

[[nodiscard]] std::string encode_base64(std::string_view bytes);
[[nodiscard]] std::optional<std::string> decode_base64(std::string_view text);

}  // namespace virtuserns::compute
