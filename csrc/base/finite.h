// Whether floats are finite, fast enough to be asked of every image and every memory bank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/matrix_view.h"

namespace onceover {

// Reads exponents instead of calling isfinite, so that the compiler can run it over whole registers.
inline bool all_finite(const float* values, size_t count) noexcept {
  constexpr uint32_t kExponent = 0x7f800000u;  // all ones in NaN and infinity only
  uint32_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  return found == 0;
}

// Throws Error(kInput) naming the first row with a NaN or infinity.
void check_finite_rows(MatrixView<const float> rows, const char* what);

}  // namespace onceover
