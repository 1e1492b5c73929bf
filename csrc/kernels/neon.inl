// NEON bodies shared by neon.cpp, neon_dotprod.cpp and neon_i8mm.cpp, which add how they multiply: dot_rows. Brings
// portable.inl; included as it is, inside the target pragma and the anonymous namespace.

#define ONCEOVER_VECTOR_BYTES 16
#define ONCEOVER_WIDEN_BYTES(from) ((Ints)widen_four(from))
#define ONCEOVER_NARROW_TO_BYTES(to, value) narrow_four((to), (int32x4_t)(value))

inline __attribute__((always_inline)) int32x4_t widen_four(const int8_t* from) {
  uint32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
inline __attribute__((always_inline)) void narrow_four(int8_t* to, int32x4_t value) {
  const int16x4_t half = vmovn_s32(value);
  const int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(half, half))), 0);
  __builtin_memcpy(to, &four, sizeof four);
}

#define ONCEOVER_PICK_LANES(values, indices) ((Floats)pick_lanes((float32x4_t)(values), (uint32x4_t)(indices)))

inline __attribute__((always_inline)) float32x4_t pick_lanes(float32x4_t values, uint32x4_t indices) {
  const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100), indices, vdupq_n_u32(0x04040404));
  return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(values), vreinterpretq_u8_u32(bytes)));
}

#define ONCEOVER_NONZERO_64(bytes) nonzero_four(bytes)

inline __attribute__((always_inline)) uint64_t nonzero_four(const uint8_t* bytes) {
  const uint8x16_t weights = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));  // a bit for each of 8 bytes
  uint8x16_t bits[4];
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const uint8x16_t value = vld1q_u8(bytes + 16 * i);
    bits[i] = vandq_u8(vtstq_u8(value, value), weights);
  }
  const uint8x16_t pairs = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)), 0);
}

#include "kernels/portable.inl"

constexpr size_t kRowsAtOnce = 4;

// sums[row][part] = start[row] + dot products of 4 rows, the first at `rows`, with queries 4 · part + (0 … 3). kPacked:
// the codes of a row stand in an order of the file's own. Coordinates before `first`, a multiple of 16, are left out.
template <bool kPacked>
ONCEOVER_INLINE void dot_rows(const int8_t* rows, size_t first, size_t tiles, const int8_t* queries, int32x4_t start,
                              int32x4_t (&sums)[kRowsAtOnce][kParts]);

// Keeps the compiler from loading further ahead than there are registers: GCC's scheduler does, and spills.
ONCEOVER_INLINE void load_no_earlier() { asm volatile("" ::: "memory"); }

template <bool kShifted, bool kPacked>
ONCEOVER_INLINE void score_rows(const CodeBlocks& blocks, size_t slot, const QueryTile& tile,
                                int32x4_t (&sums)[kRowsAtOnce][kParts]) {
  const int32x4_t minus_norms = vnegq_s32(vld1q_s32(blocks.norms + slot));
  const int8_t* rows = blocks.codes + slot / 16 * blocks.tiles * kTileBytes + slot % 16 * kTileDims;
  dot_rows<kPacked>(rows, blocks.first, blocks.tiles, tile.codes, kShifted ? vdupq_n_s32(0) : minus_norms, sums);
  if (kShifted) {
#pragma GCC unroll 4
    for (size_t part = 0; part < kParts; ++part) {
      const int32x4_t shifts = vld1q_s32(tile.shifts + part * kWidth);
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        sums[row][part] = vaddq_s32(vshlq_s32(sums[row][part], shifts), vdupq_n_s32(minus_norms[row]));
      }
    }
  }
}

template <bool kShifted, bool kPacked>
void screen_lanes(const CodeBlocks& blocks, size_t block_count, const QueryTile& tile, int32_t* maxima) {
  for (size_t block = 0; block < block_count; ++block) {
    int32x4_t best[kParts];
#pragma GCC unroll 4
    for (size_t part = 0; part < kParts; ++part) best[part] = vdupq_n_s32(INT32_MIN);
    for (size_t first = 0; first < kBlockRows; first += kRowsAtOnce) {
      int32x4_t sums[kRowsAtOnce][kParts];
      score_rows<kShifted, kPacked>(blocks, block * kBlockRows + first, tile, sums);
#pragma GCC unroll 4
      for (size_t part = 0; part < kParts; ++part) {
        const int32x4_t low = vmaxq_s32(sums[0][part], sums[1][part]), high = vmaxq_s32(sums[2][part], sums[3][part]);
        best[part] = vmaxq_s32(best[part], vmaxq_s32(low, high));
      }
    }
#pragma GCC unroll 4
    for (size_t part = 0; part < kParts; ++part) {
      vst1q_s32(maxima + block * kQueryLanes + part * kWidth, best[part]);
    }
  }
}

template <bool kPacked>
void screen_tile(const CodeBlocks& blocks, size_t block_count, const QueryTile& tile, int32_t* maxima) {
  const bool shifted = tile.shifts != nullptr;
  (shifted ? screen_lanes<true, kPacked> : screen_lanes<false, kPacked>)(blocks, block_count, tile, maxima);
}

void screen_tiles(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, size_t tile_count,
                  int32_t* const* maxima) {
  for (size_t t = 0; t < tile_count; ++t) screen_tile<false>(blocks, block_count, tiles[t], maxima[t]);
}

// Whether each lane reaches its limit: a byte of ones or zeros.
ONCEOVER_INLINE uint8x16_t reached(const int32x4_t (&sums)[kParts], const int32x4_t (&limits)[kParts]) {
  uint16x8_t whether[kParts];
#pragma GCC unroll 4
  for (size_t part = 0; part < kParts; ++part) {
    whether[part] = vreinterpretq_u16_u32(vcgeq_s32(sums[part], limits[part]));
  }
  const uint16x8_t low = vuzp1q_u16(whether[0], whether[1]), high = vuzp1q_u16(whether[2], whether[3]);
  return vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
}

template <bool kShifted>
void hit_rows(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
              const int32_t* thresholds, uint16_t* hits) {
  constexpr uint8_t kBits[kQueryLanes] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vld1q_u8(kBits);
  for (size_t i = 0; i < count; ++i) {
    for (size_t first = 0; first < kBlockRows; first += kRowsAtOnce) {
      int32x4_t sums[kRowsAtOnce][kParts], limits[kParts];
      score_rows<kShifted, false>(blocks, block_list[i] * kBlockRows + first, tile, sums);
#pragma GCC unroll 4
      for (size_t part = 0; part < kParts; ++part) {
        limits[part] = vld1q_s32(thresholds + i * kQueryLanes + part * kWidth);
      }
      uint8x16_t found[kRowsAtOnce];  // each lane's own bit of a byte
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) found[row] = vandq_u8(reached(sums[row], limits), bits);
      const uint8x16_t pairs = vpaddq_u8(vpaddq_u8(found[0], found[1]), vpaddq_u8(found[2], found[3]));
      const uint8x16_t masks = vpaddq_u8(pairs, pairs);  // eight bits to a byte, two bytes to a row
      vst1_u16(hits + i * kBlockRows + first, vreinterpret_u16_u8(vget_low_u8(masks)));
    }
  }
}

void hit_rows_i8(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
                 const int32_t* thresholds, uint16_t* hits) {
  (tile.shifts != nullptr ? hit_rows<true> : hit_rows<false>)(blocks, tile, block_list, count, thresholds, hits);
}

void dot_i8(const int8_t* rows, size_t row_count, size_t tiles, const int8_t* high_tile, const int8_t* low_tile,
            int32_t* high, int32_t* low) {
  for (size_t first = 0; first < row_count; first += kRowsAtOnce) {
    for (size_t plane = 0; plane < 2; ++plane) {
      int32x4_t sums[kRowsAtOnce][kParts];
      dot_rows<false>(rows + first / 16 * tiles * kTileBytes + first % 16 * kTileDims, 0, tiles,
                      plane == 0 ? high_tile : low_tile, vdupq_n_s32(0), sums);
      int32_t* to = (plane == 0 ? high : low) + first * kQueryLanes;
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
#pragma GCC unroll 4
        for (size_t part = 0; part < kParts; ++part) vst1q_s32(to + row * kQueryLanes + part * kWidth, sums[row][part]);
      }
    }
  }
}

// One row of a panel with 8 queries.
template <int kLane>
ONCEOVER_INLINE void add_row(const float32x4_t (&queries)[2], float32x4_t rows, float32x4_t (&sums)[2]) {
  sums[0] = vfmaq_laneq_f32(sums[0], queries[0], rows, kLane);
  sums[1] = vfmaq_laneq_f32(sums[1], queries[1], rows, kLane);
}

// A panel × 8 queries at a time: 16 accumulators, a row's value is a lane.
void scan_f32(const float* tiles, size_t tile_count, size_t dims, const float* panel, const float* start,
              float* maxima) {
  for (size_t half = 0; half < 2 * tile_count; ++half) {
    const float* from = tiles + half / 2 * dims * kQueryLanes + half % 2 * 8;
    float32x4_t sums[kPanelRows][2];
#pragma GCC unroll 8
    for (size_t row = 0; row < kPanelRows; ++row) sums[row][0] = sums[row][1] = vdupq_n_f32(start[row]);
    for (size_t k = 0; k < dims; ++k) {
      const float32x4_t queries[2] = {vld1q_f32(from + k * kQueryLanes), vld1q_f32(from + k * kQueryLanes + 4)};
      const float32x4_t low = vld1q_f32(panel + k * kPanelRows), high = vld1q_f32(panel + k * kPanelRows + 4);
      add_row<0>(queries, low, sums[0]);
      add_row<1>(queries, low, sums[1]);
      add_row<2>(queries, low, sums[2]);
      add_row<3>(queries, low, sums[3]);
      add_row<0>(queries, high, sums[4]);
      add_row<1>(queries, high, sums[5]);
      add_row<2>(queries, high, sums[6]);
      add_row<3>(queries, high, sums[7]);
    }
#pragma GCC unroll 2
    for (size_t part = 0; part < 2; ++part) {
      float32x4_t best = vld1q_f32(maxima + half * 8 + part * kWidth);
#pragma GCC unroll 8
      for (size_t row = 0; row < kPanelRows; ++row) best = vmaxnmq_f32(best, sums[row][part]);  // a number beats NaN
      vst1q_f32(maxima + half * 8 + part * kWidth, best);
    }
  }
}
