// Plain NEON, what every 64-bit ARM has: Cortex-A53, A57, A72 (Raspberry Pi 3 and 4, Jetson Nano). Two products fit in
// int16 (2 · 127 · 127 < 2^15): SMULL, SMLAL, then SADALP adds them in pairs to int32.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "kernels/kernel_table.h"

namespace onceover {
namespace {

#include "kernels/neon.inl"

constexpr size_t kRowPair = 2;

// Adds 8 coordinates, two words, of 2 rows and 16 queries. Each dot product is kept as two sums side by side:
// sums[row][part][i] holds queries 4 · part + 2 · i + (0, 0, 1, 1).
ONCEOVER_INLINE void add_words(const int8_t* rows, const int8_t* queries, int32x4_t (&sums)[kRowPair][kParts][2]) {
  int8x16_t words[kRowPair][2];
#pragma GCC unroll 2
  for (size_t row = 0; row < kRowPair; ++row) {
#pragma GCC unroll 2
    for (size_t word = 0; word < 2; ++word) {
      int32_t four;
      __builtin_memcpy(&four, rows + row * kTileDims + word * 4, 4);
      int32x4_t all = vdupq_n_s32(four);
      asm("" : "+w"(all));  // Clang, if it knew that both halves are the same, would use shuffles and SMULL for SMULL2
      words[row][word] = vreinterpretq_s8_s32(all);
    }
  }
#pragma GCC unroll 4
  for (size_t part = 0; part < kParts; ++part) {
    if (part % 2 == 0) load_no_earlier();
    const int8x16_t first = vld1q_s8(queries + part * 16), second = vld1q_s8(queries + kQueryLanes * 4 + part * 16);
#pragma GCC unroll 2
    for (size_t row = 0; row < kRowPair; ++row) {
      const int16x8_t low = vmull_s8(vget_low_s8(first), vget_low_s8(words[row][0]));
      const int16x8_t high = vmull_high_s8(first, words[row][0]);
      sums[row][part][0] =
          vpadalq_s16(sums[row][part][0], vmlal_s8(low, vget_low_s8(second), vget_low_s8(words[row][1])));
      sums[row][part][1] = vpadalq_s16(sums[row][part][1], vmlal_high_s8(high, second, words[row][1]));
    }
  }
}

// 2 rows × 16 queries at a time: 16 accumulators.
template <bool kPacked>
ONCEOVER_INLINE void dot_rows(const int8_t* rows, size_t first, size_t tiles, const int8_t* queries, int32x4_t start,
                              int32x4_t (&sums)[kRowsAtOnce][kParts]) {
#pragma GCC unroll 2
  for (size_t pair = 0; pair < kRowsAtOnce; pair += kRowPair) {
    int32x4_t halves[kRowPair][kParts][2];
#pragma GCC unroll 2
    for (size_t row = 0; row < kRowPair; ++row) {
      const int32x4_t from = vzip1q_s32(vdupq_n_s32(start[pair + row]), vdupq_n_s32(0));
#pragma GCC unroll 4
      for (size_t part = 0; part < kParts; ++part) halves[row][part][0] = halves[row][part][1] = from;
    }
    const int8_t* codes = rows + pair * kTileDims;
    size_t j = first % kTileDims;
    for (size_t t = first / kTileDims; t < tiles; ++t, j = 0) {
#pragma GCC unroll 1
      for (; j < kTileDims; j += 8) {
        add_words(codes + t * kTileBytes + j, queries + t * kTileBytes + j * kQueryLanes, halves);
      }
    }
#pragma GCC unroll 2
    for (size_t row = 0; row < kRowPair; ++row) {
#pragma GCC unroll 4
      for (size_t part = 0; part < kParts; ++part) {
        sums[pair + row][part] = vpaddq_s32(halves[row][part][0], halves[row][part][1]);
      }
    }
  }
}

}  // namespace

extern const KernelTable neon_kernels;
const KernelTable neon_kernels = {"neon",  127,          0,           0,      4,        16,
                                  nullptr, screen_tiles, hit_rows_i8, dot_i8, scan_f32, ONCEOVER_PORTABLE_KERNELS};

}  // namespace onceover

#endif  // __aarch64__
