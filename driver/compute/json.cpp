#include "driver/compute/json.h"

#include <array>
#include <set>

#include "conf/base/text.h"

namespace virtuserns::compute {
namespace {

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> make_reverse() {
  std::array<std::int8_t, 256> table{};
  table.fill(-1);
  for (std::size_t i = 0; i < kBase64.size(); ++i)
    table[static_cast<unsigned char>(kBase64[i])] = static_cast<std::int8_t>(i);
  return table;
}
constexpr auto kReverse = make_reverse();

// Watches a parse: how deep it goes, and whether an object says one thing twice.
class Watch {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxJsonDepth) wrong_ = "is nested more than " + std::to_string(kMaxJsonDepth) + " times";
    if (event == Json::parse_event_t::object_start) seen_.emplace_back();
    if (event == Json::parse_event_t::object_end && !seen_.empty()) seen_.pop_back();
    if (event == Json::parse_event_t::key && !seen_.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!seen_.back().insert(key).second) wrong_ = "says " + quote(key) + " twice";
    }
    return wrong_.empty();
  }
  [[nodiscard]] const std::string& what_is_wrong() const { return wrong_; }

 private:
  std::vector<std::set<std::string>> seen_;
  std::string wrong_;
};

}  // namespace

Result<Json> parse_json(std::string_view text) {
  Watch watch;
  auto json = Json::parse(
      text.begin(), text.end(),
      [&](int depth, Json::parse_event_t event, Json& parsed) { return watch(depth, event, parsed); }, false);
  if (!watch.what_is_wrong().empty()) return fail(VIR_ERR_INVALID_ARG, "the JSON " + watch.what_is_wrong());
  if (json.is_discarded()) return fail(VIR_ERR_INVALID_ARG, "this is no JSON");
  return json;
}

std::string format_json(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Result<Object> Object::of(const Json& json, std::string path) {
  if (!json.is_object()) return fail(VIR_ERR_INVALID_ARG, path + ": needs an object");
  return Object(json, std::move(path));
}

const Json* Object::find(std::string_view key) const {
  const auto found = json_->find(std::string(key));
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

bool Object::has(std::string_view key) const { return find(key) != nullptr; }
std::string Object::name(std::string_view key) const { return path_ + "." + std::string(key); }
Error Object::wrong(std::string_view key, const std::string& needs) const {
  return fail(VIR_ERR_INVALID_ARG, name(key) + (has(key) ? ": needs " : " is missing: needs ") + needs);
}

Result<std::string> Object::text(std::string_view key, std::size_t max_bytes) const {
  const auto* found = find(key);
  if (!found || !found->is_string()) return wrong(key, "a string");
  const auto& value = found->get_ref<const std::string&>();
  if (value.size() > max_bytes) return wrong(key, "at most " + std::to_string(max_bytes) + " bytes");
  if (!is_utf8(value)) return wrong(key, "UTF-8 without NUL");
  return value;
}

Result<std::string> Object::text_or(std::string_view key, std::string otherwise, std::size_t max_bytes) const {
  if (!has(key)) return otherwise;
  return text(key, max_bytes);
}

Result<std::uint64_t> Object::number(std::string_view key, std::uint64_t least, std::uint64_t most) const {
  const auto* found = find(key);
  if (found && found->is_number_unsigned())
    if (const auto value = found->get<std::uint64_t>(); value >= least && value <= most) return value;
  return wrong(key, "a number from " + std::to_string(least) + " to " + std::to_string(most));
}

Result<std::uint64_t> Object::number_or(std::string_view key, std::uint64_t otherwise, std::uint64_t least,
                                        std::uint64_t most) const {
  if (!has(key)) return otherwise;
  return number(key, least, most);
}

Result<bool> Object::flag(std::string_view key) const {
  const auto* found = find(key);
  if (!found || !found->is_boolean()) return wrong(key, "true or false");
  return found->get<bool>();
}

Result<bool> Object::flag_or(std::string_view key, bool otherwise) const {
  if (!has(key)) return otherwise;
  return flag(key);
}

Result<Object> Object::object(std::string_view key) const {
  const auto* found = find(key);
  if (!found) return wrong(key, "an object");
  return of(*found, name(key));
}

Result<std::optional<Object>> Object::object_or_none(std::string_view key) const {
  if (!has(key)) return std::optional<Object>();
  return std::optional<Object>(TRY(object(key)));
}

Result<std::vector<Object>> Object::objects(std::string_view key, std::size_t most) const {
  std::vector<Object> all;
  const auto* found = find(key);
  if (!found) return all;
  if (!found->is_array() || found->size() > most)
    return wrong(key, "a list of at most " + std::to_string(most) + " objects");
  for (const auto& item : *found) all.push_back(TRY(of(item, name(key) + "[" + std::to_string(all.size()) + "]")));
  return all;
}

Result<std::vector<std::string>> Object::texts(std::string_view key, std::size_t most) const {
  std::vector<std::string> all;
  const auto* found = find(key);
  if (!found) return all;
  if (!found->is_array() || found->size() > most)
    return wrong(key, "a list of at most " + std::to_string(most) + " strings");
  for (const auto& item : *found) {
    if (!item.is_string() || item.get_ref<const std::string&>().size() > kMaxText ||
        !is_utf8(item.get<std::string>()))
      return wrong(key, "strings of at most " + std::to_string(kMaxText) + " bytes");
    all.push_back(item.get<std::string>());
  }
  return all;
}

Result<std::string> Object::bytes(std::string_view key, std::size_t max_bytes) const {
  const auto encoded = TRY(text(key, max_bytes / 3 * 4 + 4));
  auto decoded = decode_base64(encoded);
  if (!decoded) return wrong(key, "base64");
  return *std::move(decoded);
}

Result<std::vector<std::pair<std::string, std::string>>> Object::settings(std::string_view key,
                                                                          std::size_t most) const {
  std::vector<std::pair<std::string, std::string>> all;
  const auto* found = find(key);
  if (!found) return all;
  if (!found->is_object() || found->size() > most)
    return wrong(key, "an object of at most " + std::to_string(most) + " members");
  for (const auto& [member, value] : found->items()) {
    std::string said = value.is_string() ? value.get<std::string>() : format_json(value);
    if (value.is_structured() || said.size() > kMaxText || !is_utf8(said) || member.size() > 255)
      return wrong(key, "members that are short strings");
    all.emplace_back(member, std::move(said));
  }
  return all;
}

std::vector<std::string> Object::keys() const {
  std::vector<std::string> all;
  for (const auto& [key, value] : json_->items()) all.push_back(key);
  return all;
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    for (std::size_t j = 0; j < 3; ++j)
      group = group << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0);
    for (std::size_t j = 0; j < 4; ++j) text += j <= count ? kBase64[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  std::uint32_t group = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_padding = i >= text.size() - padding;
    const int value = is_padding ? 0 : kReverse[static_cast<unsigned char>(text[i])];
    if (value < 0) return std::nullopt;
    group = group << 6 | static_cast<unsigned>(value);
    if (i % 4 != 3) continue;
    for (int shift = 16; shift >= 0; shift -= 8) bytes += static_cast<char>(group >> shift & 255);
    group = 0;
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

}  // namespace virtuserns::compute
