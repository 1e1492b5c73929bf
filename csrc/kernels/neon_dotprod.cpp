// NEON with SDOT (FEAT_DotProd): ARM cores since Cortex-A55 and A75, Neoverse N1 (Jetson Orin, Raspberry Pi 5).
#if defined(__aarch64__)

#include <arm_neon.h>

#include "kernels/kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=armv8.2-a+dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

namespace onceover {
namespace {

#include "kernels/neon.inl"

// 4 coordinates, word kWord of the 16 coordinates in `rows`, of 4 rows and 16 queries.
template <int kWord>
ONCEOVER_INLINE void add_word(const int8x16_t (&rows)[kRowsAtOnce], const int8_t* queries,
                              int32x4_t (&sums)[kRowsAtOnce][kParts]) {
  load_no_earlier();
  int8x16_t values[kParts];
#pragma GCC unroll 4
  for (size_t part = 0; part < kParts; ++part) values[part] = vld1q_s8(queries + kWord * 64 + part * 16);
#pragma GCC unroll 4
  for (size_t row = 0; row < kRowsAtOnce; ++row) {
#pragma GCC unroll 4
    for (size_t part = 0; part < kParts; ++part) {
      sums[row][part] = vdotq_laneq_s32(sums[row][part], values[part], rows[row], kWord);
    }
  }
}

// 16 accumulators, 4 registers of queries; a register of a row serves 4 words by its lanes.
template <bool kPacked>
ONCEOVER_INLINE void dot_rows(const int8_t* rows, size_t first, size_t tiles, const int8_t* queries, int32x4_t start,
                              int32x4_t (&sums)[kRowsAtOnce][kParts]) {
#pragma GCC unroll 4
  for (size_t row = 0; row < kRowsAtOnce; ++row) {
#pragma GCC unroll 4
    for (size_t part = 0; part < kParts; ++part) sums[row][part] = vdupq_n_s32(start[row]);
  }
  size_t j = first % kTileDims;
  for (size_t t = first / kTileDims; t < tiles; ++t, j = 0) {
#pragma GCC unroll 1
    for (; j < kTileDims; j += 16) {
      const int8_t* from = queries + t * kTileBytes + j * kQueryLanes;
      int8x16_t codes[kRowsAtOnce];
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        codes[row] = vld1q_s8(rows + t * kTileBytes + row * kTileDims + j);
      }
      add_word<0>(codes, from, sums);
      add_word<1>(codes, from, sums);
      add_word<2>(codes, from, sums);
      add_word<3>(codes, from, sums);
    }
  }
}

}  // namespace

extern const KernelTable neon_dotprod_kernels;
const KernelTable neon_dotprod_kernels = {
    "neon_dotprod", 127, 0, 0, 4, 16, nullptr, screen_tiles, hit_rows_i8, dot_i8, scan_f32, ONCEOVER_PORTABLE_KERNELS};

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __aarch64__
