#include "tools/convert/manifest.h"

#include <nlohmann/json.hpp>

#include "conf/base/text.h"

namespace virtuserns::convert {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;

// Names of files and attributes are bytes; JSON has none. "%" and what is not printable ASCII become %XX.
std::string encode(std::string_view bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7f && c != '%')
      text += c;
    else
      text += {'%', kHex[byte >> 4], kHex[byte & 15]};
  }
  return text;
}

std::optional<std::string> decode(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      bytes += text[i];
      continue;
    }
    const auto byte = parse_number<std::uint8_t>(text.substr(i + 1, 2), 16);
    if (!byte || i + 2 >= text.size()) return std::nullopt;
    bytes += static_cast<char>(*byte);
    i += 2;
  }
  return bytes;
}

constexpr std::pair<PlaceKind, const char*> kKinds[] = {
    {PlaceKind::kNothing, "nothing"}, {PlaceKind::kFile, "file"}, {PlaceKind::kLink, "link"}};

Json kind_to_json(PlaceKind kind) {
  for (const auto& [value, word] : kKinds)
    if (value == kind) return word;
  return "nothing";
}

Json time_to_json(const timespec& time) { return Json::array({time.tv_sec, time.tv_nsec}); }

// Reads members of JSON that may be anything; the first that is not as it should be makes all of it bad.
class Reader {
 public:
  [[nodiscard]] bool is_good() const { return is_good_; }

  const Json& member(const Json& object, const char* name) {
    static const Json kNull;
    const auto found = object.is_object() ? object.find(name) : object.end();
    if (found == object.end()) return is_good_ = false, kNull;
    return *found;
  }
  const Json& list(const Json& object, const char* name) {
    static const Json kEmpty = Json::array();
    const auto& value = member(object, name);
    if (!value.is_array()) return is_good_ = false, kEmpty;
    return value;
  }
  std::string bytes(const Json& value) {
    const auto decoded = value.is_string() ? decode(value.get_ref<const std::string&>()) : std::nullopt;
    if (!decoded) is_good_ = false;
    return decoded.value_or("");
  }
  std::int64_t number(const Json& value) {
    if (!value.is_number_integer()) return is_good_ = false, 0;
    return value.get<std::int64_t>();
  }
  std::uint32_t id(const Json& value) {
    const auto wide = number(value);
    if (wide < 0 || wide > UINT32_MAX) is_good_ = false;
    return static_cast<std::uint32_t>(wide);
  }
  timespec time(const Json& value) {
    if (!value.is_array() || value.size() != 2) return is_good_ = false, timespec{};
    return {static_cast<time_t>(number(value[0])), static_cast<long>(number(value[1]))};
  }
  PlaceKind kind(const Json& value) {
    const auto word = bytes(value);
    for (const auto& [kind, known] : kKinds)
      if (word == known) return kind;
    is_good_ = false;
    return PlaceKind::kNothing;
  }

 private:
  bool is_good_ = true;
};

Json entry_to_json(const ManifestEntry& entry) {
  Json json = {{"path", encode(entry.path)}, {"kind", kind_to_json(entry.original.kind)}};
  if (entry.original.kind != PlaceKind::kNothing) {
    const auto& state = entry.original;
    json["uid"] = state.uid, json["gid"] = state.gid, json["mode"] = state.mode;
    json["accessed"] = time_to_json(state.accessed), json["modified"] = time_to_json(state.modified);
    json["target"] = encode(state.target);
    json["xattrs"] = Json::object();
    for (const auto& [name, value] : state.xattrs) json["xattrs"][encode(name)] = encode(value);
  }
  json["edited"] = kind_to_json(entry.edited);
  json["edited_target"] = encode(entry.edited_target);
  return json;
}

ManifestEntry entry_from_json(Reader& reader, const Json& json) {
  ManifestEntry entry;
  entry.path = reader.bytes(reader.member(json, "path"));
  entry.edited = reader.kind(reader.member(json, "edited"));
  entry.edited_target = reader.bytes(reader.member(json, "edited_target"));
  auto& state = entry.original;
  state.kind = reader.kind(reader.member(json, "kind"));
  if (state.kind == PlaceKind::kNothing) return entry;
  state.uid = reader.id(reader.member(json, "uid")), state.gid = reader.id(reader.member(json, "gid"));
  state.mode = reader.id(reader.member(json, "mode"));
  state.accessed = reader.time(reader.member(json, "accessed"));
  state.modified = reader.time(reader.member(json, "modified"));
  state.target = reader.bytes(reader.member(json, "target"));
  for (const auto& [name, value] : reader.member(json, "xattrs").items())
    state.xattrs[decode(name).value_or("")] = reader.bytes(value);
  return entry;
}

}  // namespace

std::string format_manifest(const Manifest& manifest) {
  Json json = {
      {"format", kFormat}, {"entries", Json::array()}, {"directories", Json::array()}, {"made", Json::array()}};
  for (const auto& entry : manifest.entries) json["entries"].push_back(entry_to_json(entry));
  for (const auto& directory : manifest.directories)
    json["directories"].push_back({{"path", encode(directory.path)},
                                   {"accessed", time_to_json(directory.accessed)},
                                   {"modified", time_to_json(directory.modified)}});
  for (const auto& path : manifest.made) json["made"].push_back(encode(path));
  return json.dump(1) + "\n";
}

Result<Manifest> parse_manifest(std::string_view text) {
  const auto json = Json::parse(text, nullptr, false);
  Reader reader;
  Manifest manifest;
  if (json.is_discarded()) return fail(VIR_ERR_OPERATION_FAILED, "the manifest of originals is not JSON");
  if (const auto format = reader.number(reader.member(json, "format")); reader.is_good() && format != kFormat)
    return fail(VIR_ERR_OPERATION_FAILED, "the manifest of originals has format " + std::to_string(format) +
                                              ": this program reads " + std::to_string(kFormat));
  for (const auto& entry : reader.list(json, "entries")) manifest.entries.push_back(entry_from_json(reader, entry));
  for (const auto& directory : reader.list(json, "directories"))
    manifest.directories.push_back({reader.bytes(reader.member(directory, "path")),
                                    reader.time(reader.member(directory, "accessed")),
                                    reader.time(reader.member(directory, "modified"))});
  for (const auto& path : reader.list(json, "made")) manifest.made.push_back(reader.bytes(path));
  if (!reader.is_good()) return fail(VIR_ERR_OPERATION_FAILED, "the manifest of originals is damaged");
  return manifest;
}

}  // namespace virtuserns::convert
