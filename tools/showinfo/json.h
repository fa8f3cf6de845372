// JSON to be written: a value is its text. What comes from outside goes through `text`, which makes it printable first.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/text.h"

namespace virtuserns::showinfo {

class Json {
 public:
  Json() : text_("null") {}
  template <std::integral T>
  Json(T number) : text_(std::to_string(number)) {}                          // NOLINT: the point of it
  Json(bool fact) : text_(fact ? "true" : "false") {}                        // NOLINT
  Json(std::string_view text) : text_(quote_json(printable(text, 8192))) {}  // NOLINT
  Json(const std::string& text) : Json(std::string_view(text)) {}            // NOLINT
  Json(const char* text) : Json(std::string_view(text)) {}                   // NOLINT

  [[nodiscard]] const std::string& format() const { return text_; }

 protected:
  struct Raw {
    std::string text;
  };
  explicit Json(Raw raw) : text_(std::move(raw.text)) {}

 private:
  friend class JsonObject;
  friend class JsonList;
  std::string text_;
};

class JsonObject {
 public:
  JsonObject& set(std::string_view key, const Json& value) {
    text_ += (text_.empty() ? "" : ", ") + quote_json(key) + ": " + value.format();
    return *this;
  }
  operator Json() const { return Json(Json::Raw{"{" + text_ + "}"}); }  // NOLINT

 private:
  std::string text_;
};

// One item a line.
class JsonList {
 public:
  JsonList& add(const Json& value) {
    text_ += (text_.empty() ? "\n" : ",\n") + value.format();
    return *this;
  }
  operator Json() const { return Json(Json::Raw{text_.empty() ? "[]" : "[" + text_ + "\n]"}); }  // NOLINT

 private:
  std::string text_;
};

}  // namespace virtuserns::showinfo
