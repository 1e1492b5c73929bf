// NEON with SMMLA (FEAT_I8MM): ARM cores since Cortex-A510 and A710, Neoverse V1 and N2 (Jetson Thor, Graviton 3). One
// instruction multiplies 2 rows × 8 codes by 2 queries × 8 codes, hence words of 8 coordinates.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "kernels/kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=armv8.2-a+i8mm"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+i8mm")
#endif

namespace onceover {
namespace {

#include "kernels/neon.inl"

constexpr size_t kQueryPairs = kQueryLanes / 2;
constexpr size_t kWordBytes = 8;

// 16 coordinates of 4 rows, from `rows` at distances of 64, as pairs of rows: pairs[word][pair] = [2 rows][8].
ONCEOVER_INLINE void pair_rows(const int8_t* rows, int8x16_t (&pairs)[2][2]) {
#pragma GCC unroll 2
  for (size_t pair = 0; pair < 2; ++pair) {
    const int64x2_t even = vreinterpretq_s64_s8(vld1q_s8(rows + 2 * pair * kTileDims));
    const int64x2_t odd = vreinterpretq_s64_s8(vld1q_s8(rows + (2 * pair + 1) * kTileDims));
    pairs[0][pair] = vreinterpretq_s8_s64(vzip1q_s64(even, odd));
    pairs[1][pair] = vreinterpretq_s8_s64(vzip2q_s64(even, odd));
  }
}

// 16 accumulators [2 rows][2 queries]. Packed: 4 rows × 64 codes as [8 words][2 pairs][2 rows][8].
template <bool kPacked>
ONCEOVER_INLINE void dot_rows(const int8_t* rows, size_t first, size_t tiles, const int8_t* queries, int32x4_t start,
                              int32x4_t (&sums)[kRowsAtOnce][kParts]) {
  int32x4_t squares[2][kQueryPairs];
#pragma GCC unroll 8
  for (size_t q = 0; q < kQueryPairs; ++q) {
    squares[0][q] = vzip1q_s32(start, start);
    squares[1][q] = vzip2q_s32(start, start);
  }
  size_t j = first % kTileDims;
  for (size_t t = first / kTileDims; t < tiles; ++t, j = 0) {
#pragma GCC unroll 1
    for (; j < kTileDims; j += 2 * kWordBytes) {
      const int8_t* from = rows + t * kTileBytes + (kPacked ? j * kRowsAtOnce : j);
      int8x16_t pairs[2][2];
      if (!kPacked) pair_rows(from, pairs);
#pragma GCC unroll 2
      for (size_t word = 0; word < 2; ++word) {
        if (kPacked) {
          load_no_earlier();
          pairs[word][0] = vld1q_s8(from + word * 32);
          pairs[word][1] = vld1q_s8(from + word * 32 + 16);
        }
        const int8_t* next = queries + t * kTileBytes + (j + word * kWordBytes) * kQueryLanes;
#pragma GCC unroll 8
        for (size_t q = 0; q < kQueryPairs; ++q) {
          if (q % 4 == 0) load_no_earlier();
          const int8x16_t values = vld1q_s8(next + q * 16);
          squares[0][q] = vmmlaq_s32(squares[0][q], pairs[word][0], values);
          squares[1][q] = vmmlaq_s32(squares[1][q], pairs[word][1], values);
        }
      }
    }
  }
#pragma GCC unroll 2
  for (size_t pair = 0; pair < 2; ++pair) {
#pragma GCC unroll 4
    for (size_t part = 0; part < kParts; ++part) {
      const int64x2_t low = vreinterpretq_s64_s32(squares[pair][2 * part]);
      const int64x2_t high = vreinterpretq_s64_s32(squares[pair][2 * part + 1]);
      sums[2 * pair][part] = vreinterpretq_s32_s64(vzip1q_s64(low, high));
      sums[2 * pair + 1][part] = vreinterpretq_s32_s64(vzip2q_s64(low, high));
    }
  }
}

constexpr size_t kPackedBytes = 16 * 1024;  // stays in the first-level cache with a tile of queries

// Pairs the rows once for all tiles of queries, when there are enough of them to pay for it.
void screen_i8(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, size_t tile_count,
               int32_t* const* maxima) {
  const size_t block_bytes = kBlockRows * kTileDims * blocks.tiles, fit = kPackedBytes / block_bytes;
  if (fit == 0 || tile_count < 4) return screen_tiles(blocks, block_count, tiles, tile_count, maxima);
  alignas(64) int8_t packed[kPackedBytes];
  for (size_t first = 0; first < block_count; first += fit) {
    const size_t count = block_count - first < fit ? block_count - first : fit;
    const int8_t* from = blocks.codes + first * block_bytes;
    for (size_t group = 0; group < count * block_bytes; group += kRowsAtOnce * kTileDims) {
      for (size_t j = 0; j < kTileDims; j += 2 * kWordBytes) {
        int8x16_t pairs[2][2];
        pair_rows(from + group + j, pairs);
        for (size_t i = 0; i < 4; ++i) vst1q_s8(packed + group + j * kRowsAtOnce + i * 16, pairs[i / 2][i % 2]);
      }
    }
    const size_t slot = first * kBlockRows;
    const CodeBlocks part = {packed, blocks.norms + slot, blocks.sums + slot, blocks.tiles, blocks.first};
    for (size_t t = 0; t < tile_count; ++t) screen_tile<true>(part, count, tiles[t], maxima[t] + first * kQueryLanes);
  }
}

}  // namespace

extern const KernelTable neon_i8mm_kernels;
const KernelTable neon_i8mm_kernels = {"neon_i8mm", 127,    0,        0,
                                       kWordBytes,  16,     nullptr,  screen_i8,
                                       hit_rows_i8, dot_i8, scan_f32, ONCEOVER_PORTABLE_KERNELS};

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __aarch64__
