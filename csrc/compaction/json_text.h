// A JSON object that is edited as text: values are found and replaced in place, everything else stays byte for byte. A
// package's manifest needs no more, so that the core needs no JSON library.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace onceover {

// As a JSON string: quotes, backslashes and control characters escaped; what is no UTF-8 becomes U+FFFD, one for each
// byte that is not understood.
std::string json_string(std::string_view text);

class JsonText {
 public:
  // Keys from the outside in, as they are written, without escapes; of an array the number of an item, from 0. Of equal
  // keys the last one counts, as in Python.
  using Path = std::vector<std::string>;

  // Throws Error(kPackage), beginning with `label`, for what is not one JSON object (RFC 8259) in UTF-8, or is nested
  // deeper than 100.
  JsonText(std::string text, const std::string& label);

  const std::string& text() const { return text_; }
  // The value as it is written; none where a key is missing or no object holds it.
  std::optional<std::string_view> find(const Path& path) const;
  bool is_object(const Path& path) const;
  // Elements of an array; none where there is no array.
  std::optional<size_t> count(const Path& path) const;

  // Each takes values that are JSON. The object or array that `path` leads into must be there.
  void set(const Path& object, std::string_view key, std::string_view value);  // replaced, or added at the end
  void append(const Path& array, const std::vector<std::string>& values);

 private:
  struct Span {
    size_t begin, end;
  };
  std::optional<Span> span_of(const Path& path) const;
  std::optional<Span> member_of(Span container, std::string_view key) const;
  void insert(Span container, const std::vector<std::string>& items);

  std::string text_;
};

}  // namespace onceover
