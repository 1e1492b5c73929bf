// What judges the fields of a package's fixed members: the same check when they are written and when they are read.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "base/error.h"
#include "package/reader.h"

namespace onceover {

inline std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}
inline std::string text_of(uint64_t value) { return std::to_string(value); }
inline std::string text_of(uint32_t value) { return std::to_string(value); }

// Judges the fields of one member; its failures name package, member, field, value and what is allowed.
class Fields {
 public:
  // Of a member being read. A value that a newer minor version gave a meaning is not damage.
  Fields(const Package& package, const char* member)
      : newer_(package.minor_version() > kFormatMinor),
        status_(newer_ ? Status::kUnsupported : Status::kPackage),
        where_(package.label() + ": member '" + member + "'") {}
  // Of a member being written.
  explicit Fields(const char* member) : status_(Status::kUsage), where_(std::string("member '") + member + "'") {}

  [[noreturn]] void refuse(const std::string& field, const std::string& got, const std::string& allowed) const {
    const char* advice = status_ == Status::kUsage         ? "correct it before writing"
                         : status_ == Status::kUnsupported ? "the package is newer than this version, update onceover"
                                                           : "fit again, or use the onceover version that wrote it";
    fail(status_, "%s: field '%s' is %s, expected %s; %s", where_.c_str(), field.c_str(), got.c_str(), allowed.c_str(),
         advice);
  }
  template <typename T>
  void equal(const std::string& field, T got, T expected) const {
    if (got != expected) refuse(field, text_of(got), text_of(expected));
  }
  template <typename T>
  void within(const std::string& field, T got, T low, T high) const {
    if (!(got >= low && got <= high)) refuse(field, text_of(got), text_of(low) + " to " + text_of(high));
  }
  void finite(const std::string& field, const float* values, size_t count) const {
    for (size_t i = 0; i < count; ++i) {
      if (!std::isfinite(values[i])) {
        refuse(count == 1 ? field : field + "[" + std::to_string(i) + "]", text_of(double{values[i]}),
               "a finite number");
      }
    }
  }
  void zeros(const void* bytes, size_t size) const {
    const auto* begin = static_cast<const uint8_t*>(bytes);
    const auto* set = std::find_if(begin, begin + size, [](uint8_t b) { return b != 0; });
    if (set != begin + size) refuse("zeros", "not zero at byte " + std::to_string(set - begin), "all zero");
  }
  // An array of `bytes` inside a member of `size` bytes, after its records. `bytes` is computed, so it is checked.
  void inside(const std::string& field, uint64_t offset, uint64_t bytes, uint64_t begin, uint64_t size) const {
    if (offset % 4 != 0 || offset < begin || offset > size || bytes > size - offset) {
      refuse(field, std::to_string(offset) + " for " + std::to_string(bytes) + " bytes",
             "a multiple of 4 from " + std::to_string(begin) + " on that ends within the member's " +
                 std::to_string(size) + " bytes");
    }
  }

  // The size that a record says it has. Only a newer minor version may have appended to it.
  void record_size(uint32_t got, size_t known, size_t largest) const {
    const auto low = static_cast<uint32_t>(known), high = static_cast<uint32_t>(largest);
    if (newer_) {
      within("record_bytes", got, low, high);
    } else {
      equal("record_bytes", got, low);
    }
  }

 private:
  bool newer_ = false;
  Status status_;
  std::string where_;
};

}  // namespace onceover
