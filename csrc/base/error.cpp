#include "base/error.h"

#include <cstdio>
#include <vector>

namespace onceover {

void fail(Status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  va_list again;
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::vector<char> text(length > 0 ? static_cast<size_t>(length) + 1 : 1);
  std::vsnprintf(text.data(), text.size(), format, again);
  va_end(again);
  throw Error(status, std::string(text.data()));
}

}  // namespace onceover
