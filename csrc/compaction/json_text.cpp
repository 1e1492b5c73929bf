#include "compaction/json_text.h"

#include <cstdint>
#include <cstdio>

#include "base/error.h"

namespace onceover {
namespace {

constexpr int kDeepest = 100;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// Bytes of the UTF-8 character at `at` (RFC 3629); 0: there is none.
size_t character_bytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(at + i < text.size() ? text[at + i] : 0); };
  const auto continues = [&](size_t i, uint8_t low, uint8_t high) { return byte(i) >= low && byte(i) <= high; };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1, 0x80, 0xbf) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {  // neither longer than needed nor half of a UTF-16 pair
    const uint8_t low = first == 0xe0 ? 0xa0 : 0x80, high = first == 0xed ? 0x9f : 0xbf;
    return continues(1, low, high) && continues(2, 0x80, 0xbf) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const uint8_t low = first == 0xf0 ? 0x90 : 0x80, high = first == 0xf4 ? 0x8f : 0xbf;
    return continues(1, low, high) && continues(2, 0x80, 0xbf) && continues(3, 0x80, 0xbf) ? 4 : 0;
  }
  return 0;
}

// Walks JSON from a position on; what is wrong ends the walk at `at` with a reason.
struct Walker {
  std::string_view text;
  size_t at = 0;
  const char* wrong = nullptr;

  bool fail_with(const char* reason) {
    if (wrong == nullptr) wrong = reason;
    return false;
  }
  char here() const { return at < text.size() ? text[at] : '\0'; }
  void space() {
    while (at < text.size() && is_space(text[at])) ++at;
  }
  bool take(char c) {
    if (here() != c || at >= text.size()) return false;
    ++at;
    return true;
  }

  bool string() {
    if (!take('"')) return fail_with("a string was expected");
    while (at < text.size()) {
      const char c = text[at];
      if (c == '"') return ++at, true;
      if (static_cast<uint8_t>(c) < 0x20) return fail_with("a control character in a string");
      if (c != '\\') {
        const size_t bytes = character_bytes(text, at);
        if (bytes == 0) return fail_with("a byte that is no UTF-8");
        at += bytes;
        continue;
      }
      ++at;
      const char escaped = here();
      if (std::string_view("\"\\/bfnrt").find(escaped) != std::string_view::npos && escaped != '\0') {
        ++at;
      } else if (escaped == 'u') {
        for (int i = 1; i <= 4; ++i) {
          if (at + static_cast<size_t>(i) >= text.size() || !is_hex(text[at + static_cast<size_t>(i)])) {
            return fail_with("an escape that is none");
          }
        }
        at += 5;
      } else {
        return fail_with("an escape that is none");
      }
    }
    return fail_with("a string that does not end");
  }

  bool digits() {
    if (!is_digit(here())) return fail_with("a number that is none");
    while (is_digit(here())) ++at;
    return true;
  }

  bool number() {
    take('-');
    if (here() == '0') {
      ++at;
    } else if (!digits()) {
      return false;
    }
    if (take('.') && !digits()) return false;
    if (here() != 'e' && here() != 'E') return true;
    ++at;
    if (!take('+')) take('-');
    return digits();
  }

  // The items of an object or array, from its bracket on: visit(begin, end) of each, of an object from the key on.
  template <typename Visit>
  bool items(int depth, const Visit& visit) {
    const bool is_object = here() == '{';
    const char close = is_object ? '}' : ']';
    ++at;
    space();
    if (take(close)) return true;
    for (;;) {
      space();
      const size_t begin = at;
      if (is_object) {
        if (!string()) return false;
        space();
        if (!take(':')) return fail_with("':' was expected");
        space();
      }
      const size_t value_begin = at;
      if (!value(depth + 1)) return false;
      visit(begin, value_begin, at);
      space();
      if (take(close)) return true;
      if (!take(',')) return fail_with(is_object ? "',' or '}' was expected" : "',' or ']' was expected");
    }
  }

  bool value(int depth) {
    if (depth > kDeepest) return fail_with("it is nested too deep");
    switch (here()) {
      case '{':
      case '[':
        return items(depth, [](size_t, size_t, size_t) {});
      case '"':
        return string();
      case '-':
        return number();
      default:
        break;
    }
    if (is_digit(here())) return number();
    for (const std::string_view word :
         {std::string_view("true"), std::string_view("false"), std::string_view("null")}) {
      if (text.substr(at, word.size()) == word) return at += word.size(), true;
    }
    return fail_with("a value was expected");
  }
};

// From a bracket on, whose text was walked before.
template <typename Visit>
void each_item(std::string_view text, size_t begin, const Visit& visit) {
  Walker walker{text, begin};
  walker.items(0, visit);
}

}  // namespace

std::string json_string(std::string_view text) {
  std::string quoted = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = character_bytes(text, at);
    const auto byte = static_cast<uint8_t>(text[at]);
    if (bytes == 0) {
      quoted += "\xef\xbf\xbd";
    } else if (byte < 0x20 || byte == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(byte));
      quoted += escaped;
    } else {
      if (byte == '"' || byte == '\\') quoted += '\\';
      quoted += text.substr(at, bytes);
    }
    at += bytes == 0 ? 1 : bytes;
  }
  return quoted + "\"";
}

JsonText::JsonText(std::string text, const std::string& label) : text_(std::move(text)) {
  Walker walker{text_};
  walker.space();
  const bool is_object = walker.here() == '{';
  bool whole = is_object ? walker.value(0) : walker.fail_with("it is no object");
  if (whole) {
    walker.space();
    if (walker.at < text_.size()) whole = walker.fail_with("something follows its end");
  }
  if (whole) return;
  fail(Status::kPackage, "%s: is not a JSON object: %s at byte %zu; fit the package again", label.c_str(), walker.wrong,
       walker.at);
}

std::optional<JsonText::Span> JsonText::member_of(Span container, std::string_view key) const {
  std::optional<Span> found;
  if (text_[container.begin] == '[') {
    size_t number = 0;
    each_item(text_, container.begin, [&](size_t, size_t value, size_t end) {
      if (std::to_string(number++) == key) found = Span{value, end};
    });
  }
  if (text_[container.begin] != '{') return found;
  const std::string quoted = "\"" + std::string(key) + "\"";
  each_item(text_, container.begin, [&](size_t name, size_t value, size_t end) {
    if (text_.compare(name, quoted.size(), quoted) == 0) found = Span{value, end};
  });
  return found;
}

std::optional<JsonText::Span> JsonText::span_of(const Path& path) const {
  std::optional<Span> span = Span{text_.find('{'), text_.size()};
  for (const std::string& key : path) {
    if (span) span = member_of(*span, key);
  }
  return span;
}

std::optional<std::string_view> JsonText::find(const Path& path) const {
  const std::optional<Span> span = span_of(path);
  if (!span) return std::nullopt;
  return std::string_view(text_).substr(span->begin, span->end - span->begin);
}

bool JsonText::is_object(const Path& path) const {
  const std::optional<Span> span = span_of(path);
  return span && text_[span->begin] == '{';
}

std::optional<size_t> JsonText::count(const Path& path) const {
  const std::optional<Span> span = span_of(path);
  if (!span || text_[span->begin] != '[') return std::nullopt;
  size_t count = 0;
  each_item(text_, span->begin, [&](size_t, size_t, size_t) { ++count; });
  return count;
}

// Behind the last item, with the spaces that stand before that one.
void JsonText::insert(Span container, const std::vector<std::string>& items) {
  size_t last = 0, end = container.begin + 1;
  each_item(text_, container.begin, [&](size_t item_begin, size_t, size_t item_end) {
    last = item_begin;
    end = item_end;
  });
  size_t spaces_begin = last;
  while (spaces_begin > 0 && is_space(text_[spaces_begin - 1])) --spaces_begin;
  const std::string spaces = text_.substr(spaces_begin, last - spaces_begin);
  std::string added;
  for (const std::string& item : items) {
    if (last != 0 || !added.empty()) added += ',';
    added += spaces + item;
  }
  text_.insert(end, added);
}

void JsonText::set(const Path& object, std::string_view key, std::string_view value) {
  const std::optional<Span> holder = span_of(object);
  if (!holder || text_[holder->begin] != '{') fail(Status::kInternal, "there is no JSON object to set a value in");
  if (const std::optional<Span> old = member_of(*holder, key)) {
    text_.replace(old->begin, old->end - old->begin, value);
    return;
  }
  insert(*holder, {json_string(key) + ": " + std::string(value)});
}

void JsonText::append(const Path& array, const std::vector<std::string>& values) {
  const std::optional<Span> holder = span_of(array);
  if (!holder || text_[holder->begin] != '[') fail(Status::kInternal, "there is no JSON array to append to");
  if (!values.empty()) insert(*holder, values);
}

}  // namespace onceover
