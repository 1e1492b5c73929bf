#include "base/pages.h"

namespace onceover {

void touch_pages(const uint8_t* bytes, size_t size) noexcept {
  constexpr size_t kPage = 4096;  // the smallest page of any machine this runs on
  const volatile uint8_t* read = bytes;
  for (size_t at = 0; at < size; at += kPage) (void)read[at];
  if (size > 0) (void)read[size - 1];
}

}  // namespace onceover
