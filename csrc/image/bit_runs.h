// Runs of ones in a row of bits, bit i % 64 of words[i / 64], as kernels write them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

// Calls use(first, end) for each run of ones in ascending order; the bits beyond `count` are 0.
template <typename Use>
void each_run_of_bits(const uint64_t* words, size_t count, Use&& use) {
  bool inside = false;
  size_t first = 0;
  for (size_t start = 0; start < count; start += 64) {
    const uint64_t word = words[start / 64];
    uint64_t edges = word ^ (word << 1 | (inside ? 1 : 0));  // where a bit differs from the one before
    for (; edges != 0; edges &= edges - 1) {
      const size_t at = start + static_cast<size_t>(__builtin_ctzll(edges));
      if (inside) use(first, at);
      first = at;
      inside = !inside;
    }
  }
  if (inside) use(first, count);
}

}  // namespace onceover
