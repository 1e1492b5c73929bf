// AMX int8 tiles beside AVX-512: Intel servers since Sapphire Rapids. A tile register holds 16 rows × 64 codes; one
// instruction multiplies 16 bank rows by 16 queries over 64 coordinates. The OS must grant the tiles first
// (base/cpu_features.cpp); every function here configures them and gives them back.
//
// Tiles 0 to 3 accumulate 32 rows × 32 queries, 4 and 5 hold bank rows, 6 and 7 queries. The accumulators are stored to
// two buffers in turn, so that the vector units reduce one block while the tile unit multiplies the next.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "kernels/kernel_table.h"

// A test builds this file a second time with ONCEOVER_AMX_EMULATION, a file that spells out the tile instructions in
// plain C++, so that everything but the instructions themselves is also checked where no AMX exists.
#if defined(ONCEOVER_AMX_EMULATION)
#include ONCEOVER_AMX_EMULATION
#define ONCEOVER_TARGET_CLANG "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#else
#define ONCEOVER_TARGET_CLANG "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8"
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target(ONCEOVER_TARGET_CLANG))), apply_to = function)
#elif defined(ONCEOVER_AMX_EMULATION)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,prefer-vector-width=512")
#endif

namespace onceover {
namespace {

#include "kernels/x86_512_bytes.inl"
#define ONCEOVER_VECTOR_BYTES 64
#include "kernels/portable.inl"
#include "kernels/x86_512.inl"

constexpr size_t kHalfRows = 16;                  // bank rows of one tile
constexpr size_t kLanes2 = 2;                     // tiles of queries side by side
typedef int32_t Scores[kHalfRows * kQueryLanes];  // of one accumulator

struct alignas(64) TileShapes {
  uint8_t palette, start_row;
  uint8_t zeros[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
const TileShapes kTileShapes = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// accumulators[half][q]: rows of a half block × queries of tile q.
template <size_t kTiles>
ONCEOVER_INLINE void multiply_block(const int8_t* codes, size_t first, size_t tiles,
                                    const int8_t* const (&queries)[kTiles], Scores (&scores)[2][kTiles]) {
  _tile_zero(0);
  _tile_zero(2);
  if (kTiles == 2) {
    _tile_zero(1);
    _tile_zero(3);
  }
  for (size_t t = first / kTileDims; t < tiles; ++t) {
    _tile_loadd(6, queries[0] + t * kTileBytes, 64);
    _tile_loadd(4, codes + t * kTileBytes, 64);
    _tile_dpbssd(0, 4, 6);
    if (kTiles == 2) {
      _tile_loadd(7, queries[kTiles - 1] + t * kTileBytes, 64);
      _tile_dpbssd(1, 4, 7);
    }
    _tile_loadd(5, codes + (tiles + t) * kTileBytes, 64);
    _tile_dpbssd(2, 5, 6);
    if (kTiles == 2) _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, scores[0][0], 64);
  _tile_stored(2, scores[1][0], 64);
  if (kTiles == 2) {
    _tile_stored(1, scores[0][kTiles - 1], 64);
    _tile_stored(3, scores[1][kTiles - 1], 64);
  }
}

template <size_t kTiles, bool kShifted>
ONCEOVER_INLINE void reduce_block(const int32_t* norms, const __m512i (&shifts)[kTiles],
                                  const Scores (&scores)[2][kTiles], int32_t* const (&maxima)[kTiles]) {
  __m512i best[2][kTiles];
#pragma GCC unroll 2
  for (size_t half = 0; half < 2; ++half) {
#pragma GCC unroll 2
    for (size_t q = 0; q < kTiles; ++q) best[half][q] = _mm512_set1_epi32(INT32_MIN);
  }
#pragma GCC unroll 16
  for (size_t row = 0; row < kHalfRows; ++row) {
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
      const __m512i norm = _mm512_set1_epi32(norms[half * kHalfRows + row]);
#pragma GCC unroll 2
      for (size_t q = 0; q < kTiles; ++q) {
        __m512i product = _mm512_load_si512(scores[half][q] + row * kQueryLanes);
        if (kShifted) product = _mm512_sllv_epi32(product, shifts[q]);
        best[half][q] = _mm512_max_epi32(best[half][q], _mm512_sub_epi32(product, norm));
      }
    }
  }
#pragma GCC unroll 2
  for (size_t q = 0; q < kTiles; ++q) _mm512_storeu_si512(maxima[q], _mm512_max_epi32(best[0][q], best[1][q]));
}

template <size_t kTiles, bool kShifted>
void screen_by_tiles(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, int32_t* const* maxima) {
  const int8_t* queries[kTiles];
  __m512i shifts[kTiles];
  for (size_t q = 0; q < kTiles; ++q) {
    queries[q] = tiles[q].codes;
    shifts[q] = kShifted && tiles[q].shifts != nullptr ? _mm512_loadu_si512(tiles[q].shifts) : _mm512_setzero_si512();
  }
  const size_t block_bytes = kBlockRows * kTileDims * blocks.tiles;
  alignas(64) Scores scores[2][2][kTiles];  // [turn][half][q]
  for (size_t block = 0; block <= block_count; ++block) {
    if (block < block_count) {
      multiply_block<kTiles>(blocks.codes + block * block_bytes, blocks.first, blocks.tiles, queries,
                             scores[block % 2]);
    }
    if (block == 0) continue;
    int32_t* to[kTiles];
    for (size_t q = 0; q < kTiles; ++q) to[q] = maxima[q] + (block - 1) * kQueryLanes;
    reduce_block<kTiles, kShifted>(blocks.norms + (block - 1) * kBlockRows, shifts, scores[(block - 1) % 2], to);
  }
}

void screen_i8(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, size_t tile_count,
               int32_t* const* maxima) {
  _tile_loadconfig(&kTileShapes);
  size_t t = 0;
  for (; t + kLanes2 <= tile_count; t += kLanes2) {
    const bool shifted = tiles[t].shifts != nullptr || tiles[t + 1].shifts != nullptr;
    (shifted ? screen_by_tiles<2, true> : screen_by_tiles<2, false>)(blocks, block_count, tiles + t, maxima + t);
  }
  if (t < tile_count) {
    const bool shifted = tiles[t].shifts != nullptr;
    (shifted ? screen_by_tiles<1, true> : screen_by_tiles<1, false>)(blocks, block_count, tiles + t, maxima + t);
  }
  _tile_release();
}

void hit_rows_i8(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
                 const int32_t* thresholds, uint16_t* hits) {
  _tile_loadconfig(&kTileShapes);
  const int8_t* const queries[1] = {tile.codes};
  const __m512i shifts = tile.shifts != nullptr ? _mm512_loadu_si512(tile.shifts) : _mm512_setzero_si512();
  const size_t block_bytes = kBlockRows * kTileDims * blocks.tiles;
  alignas(64) Scores scores[2][2][1];  // [turn][half][q]
  for (size_t i = 0; i <= count; ++i) {
    if (i < count) {
      if (i + 1 < count) {
        const int8_t* next = blocks.codes + block_list[i + 1] * block_bytes;
        for (size_t line = 0; line < block_bytes; line += 64) _mm_prefetch(next + line, _MM_HINT_T0);
      }
      multiply_block<1>(blocks.codes + block_list[i] * block_bytes, blocks.first, blocks.tiles, queries, scores[i % 2]);
    }
    if (i == 0) continue;
    const int32_t* norms = blocks.norms + block_list[i - 1] * kBlockRows;
    const __m512i threshold = _mm512_loadu_si512(thresholds + (i - 1) * kQueryLanes);
    uint16_t* to = hits + (i - 1) * kBlockRows;
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
#pragma GCC unroll 16
      for (size_t row = 0; row < kHalfRows; ++row) {
        const __m512i product =
            _mm512_sllv_epi32(_mm512_load_si512(scores[(i - 1) % 2][half][0] + row * kQueryLanes), shifts);
        const __m512i score = _mm512_sub_epi32(product, _mm512_set1_epi32(norms[half * kHalfRows + row]));
        to[half * kHalfRows + row] = _mm512_cmpge_epi32_mask(score, threshold);
      }
    }
  }
  _tile_release();
}

// Two groups of 16 rows × two planes at a time; an odd group at the end alone.
void dot_i8(const int8_t* rows, size_t row_count, size_t tiles, const int8_t* high_tile, const int8_t* low_tile,
            int32_t* high, int32_t* low) {
  _tile_loadconfig(&kTileShapes);
  for (size_t first = 0; first < row_count; first += 2 * kHalfRows) {
    const bool both = first + kHalfRows < row_count;
    const int8_t* codes = rows + first * kTileDims * tiles;
    const int8_t* more = both ? codes + tiles * kTileBytes : codes;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t t = 0; t < tiles; ++t) {
      _tile_loadd(6, high_tile + t * kTileBytes, 64);
      _tile_loadd(7, low_tile + t * kTileBytes, 64);
      _tile_loadd(4, codes + t * kTileBytes, 64);
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_loadd(5, more + t * kTileBytes, 64);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(0, high + first * kQueryLanes, 64);
    _tile_stored(1, low + first * kQueryLanes, 64);
    if (both) {
      _tile_stored(2, high + (first + kHalfRows) * kQueryLanes, 64);
      _tile_stored(3, low + (first + kHalfRows) * kQueryLanes, 64);
    }
  }
  _tile_release();
}

// Tiles screen all coordinates or none.
constexpr KernelTable kCounting = {"amx counting",
                                   127,
                                   kVnniOffset,
                                   0,
                                   4,
                                   16,
                                   nullptr,
                                   vnni_screen_i8,
                                   vnni_hit_rows_i8,
                                   vnni_dot_i8,
                                   scan_f32,
                                   ONCEOVER_PORTABLE_KERNELS};

}  // namespace

extern const KernelTable amx_kernels;
const KernelTable amx_kernels = {"amx",      127,       0,           0,      4,        kTileDims,
                                 &kCounting, screen_i8, hit_rows_i8, dot_i8, scan_f32, ONCEOVER_PORTABLE_KERNELS};

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
