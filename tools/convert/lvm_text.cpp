#include "tools/convert/lvm_text.h"

#include <algorithm>

#include "conf/base/text.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kMaxDepth = 8, kMaxNodes = 20000, kMaxWord = 4096;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<LvmNode> parse() {
    LvmNode root;
    root.is_section = true;
    TRY(parse_section(root, 0));
    return root;
  }

 private:
  Error wrong(const std::string& what) const {
    return fail(VIR_ERR_OPERATION_FAILED, "LVM metadata at byte " + std::to_string(at_) + ": " + what);
  }

  void skip_blanks() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#')
        at_ = std::min(text_.find('\n', at_), text_.size());
      else if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\0')
        ++at_;
      else
        return;
    }
  }
  char peek() {
    skip_blanks();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  Result<void> count() { return ++nodes_ > kMaxNodes ? Result<void>(wrong("too much of it")) : Result<void>(); }

  Result<std::string> word() {
    skip_blanks();
    const auto first = at_;
    while (at_ < text_.size() && std::string_view(" \t\n\r={}[],#\"").find(text_[at_]) == std::string_view::npos &&
           text_[at_] != '\0')
      ++at_;
    if (at_ == first || at_ - first > kMaxWord) return wrong("a word is expected");
    return std::string(text_.substr(first, at_ - first));
  }

  Result<std::string> value() {
    TRY(count());
    if (peek() != '"') return word();
    std::string value;
    for (++at_; at_ < text_.size() && value.size() <= kMaxWord; ++at_) {
      if (text_[at_] == '"') {
        ++at_;
        return value;
      }
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
      value += text_[at_];
    }
    return wrong("a string without an end");
  }

  Result<void> parse_values(LvmNode& node) {
    if (!take('[')) {
      node.values.push_back(TRY(value()));
      return {};
    }
    while (!take(']')) {
      node.values.push_back(TRY(value()));
      if (!take(',') && peek() != ']') return wrong("a list without an end");
    }
    return {};
  }

  Result<void> parse_section(LvmNode& section, std::size_t depth) {
    if (depth > kMaxDepth) return wrong("too deep");
    for (;;) {
      const char next = peek();
      if (next == '\0' && at_ >= text_.size())
        return depth == 0 ? Result<void>() : Result<void>(wrong("a section without an end"));
      if (next == '}') {
        ++at_;
        return depth != 0 ? Result<void>() : Result<void>(wrong("'}' without a section"));
      }
      TRY(count());
      LvmNode node;
      node.name = TRY(word());
      if (take('{')) {
        node.is_section = true;
        TRY(parse_section(node, depth + 1));
      } else if (take('=')) {
        TRY(parse_values(node));
      } else {
        return wrong("neither a section nor a value");
      }
      section.children.push_back(std::move(node));
    }
  }

  std::string_view text_;
  std::size_t at_ = 0, nodes_ = 0;
};

}  // namespace

const LvmNode* LvmNode::child(std::string_view child_name) const {
  const auto found =
      std::find_if(children.begin(), children.end(), [&](const auto& node) { return node.name == child_name; });
  return found == children.end() ? nullptr : &*found;
}

std::optional<std::uint64_t> LvmNode::number(std::string_view child_name) const {
  const auto* node = child(child_name);
  if (!node || node->values.size() != 1) return std::nullopt;
  return parse_number<std::uint64_t>(node->values.front());
}

std::string LvmNode::text(std::string_view child_name) const {
  const auto* node = child(child_name);
  return node && node->values.size() == 1 ? node->values.front() : "";
}

bool LvmNode::has_value(std::string_view child_name, std::string_view value) const {
  const auto* node = child(child_name);
  return node && std::find(node->values.begin(), node->values.end(), value) != node->values.end();
}

Result<LvmNode> parse_lvm_text(std::string_view text) { return Parser(text).parse(); }

}  // namespace virtuserns::convert
