// Pages of memory that are mapped before they are needed, so that no frame waits for them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

// Reads one byte of each page.
void touch_pages(const uint8_t* bytes, size_t size) noexcept;

}  // namespace onceover
