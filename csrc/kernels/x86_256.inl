// 256-bit bodies shared by avx2.cpp and avxvnni.cpp. Before including it, define add_products(sum, query, bank): sum +
// products of unsigned query codes and signed bank codes, four to a lane; kOffset and kUnit, what the table calls
// query_offset and unit_shift. Included as portable.inl is, after it.
// Register plan: 4 rows × 16 queries are 8 accumulators; a row's word of 4 codes is broadcast once for both halves.

constexpr size_t kRowsAtOnce = 4;
constexpr size_t kHalves = 2;  // of 8 queries

ONCEOVER_INLINE void add_dots(const int8_t* rows, size_t first, size_t tiles, const int8_t* queries,
                              __m256i (&sums)[kHalves][kRowsAtOnce]) {
  size_t word = first % kTileDims / 4;
  for (size_t t = first / kTileDims; t < tiles; ++t, word = 0) {
#pragma GCC unroll 4
    for (; word < kTileDims / 4; ++word) {
      const __m256i* from = reinterpret_cast<const __m256i*>(queries + t * kTileBytes + word * 64);
      const __m256i low = _mm256_load_si256(from), high = _mm256_load_si256(from + 1);
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        int32_t four;
        __builtin_memcpy(&four, rows + t * kTileBytes + row * kTileDims + word * 4, 4);
        const __m256i broadcast = _mm256_set1_epi32(four);
        sums[0][row] = add_products(sums[0][row], low, broadcast);
        sums[1][row] = add_products(sums[1][row], high, broadcast);
      }
    }
  }
}

// Scores of 4 rows, starting from `slot`. The offset of the query codes is taken out through the start value.
template <bool kShifted>
ONCEOVER_INLINE void score_rows(const CodeBlocks& blocks, size_t slot, const QueryTile& tile,
                                __m256i (&sums)[kHalves][kRowsAtOnce]) {
#pragma GCC unroll 4
  for (size_t row = 0; row < kRowsAtOnce; ++row) {
    const int32_t offset = kOffset * blocks.sums[slot + row], norm = blocks.norms[slot + row] >> kUnit;
    sums[0][row] = sums[1][row] = _mm256_set1_epi32(-(kShifted ? offset : offset + norm));
  }
  add_dots(blocks.codes + slot / 16 * blocks.tiles * kTileBytes + slot % 16 * kTileDims, blocks.first, blocks.tiles,
           tile.codes, sums);
  if (kShifted) {
#pragma GCC unroll 2
    for (size_t half = 0; half < kHalves; ++half) {
      const __m256i shifts = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.shifts) + half);
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        const __m256i norm = _mm256_set1_epi32(blocks.norms[slot + row] >> kUnit);
        sums[half][row] = _mm256_sub_epi32(_mm256_sllv_epi32(sums[half][row], shifts), norm);
      }
    }
  }
}

template <bool kShifted>
void screen_tile(const CodeBlocks& blocks, size_t block_count, const QueryTile& tile, int32_t* maxima) {
  for (size_t block = 0; block < block_count; ++block) {
    __m256i best[kHalves] = {_mm256_set1_epi32(INT32_MIN), _mm256_set1_epi32(INT32_MIN)};
    for (size_t first = 0; first < kBlockRows; first += kRowsAtOnce) {
      __m256i sums[kHalves][kRowsAtOnce];
      score_rows<kShifted>(blocks, block * kBlockRows + first, tile, sums);
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        best[0] = _mm256_max_epi32(best[0], sums[0][row]);
        best[1] = _mm256_max_epi32(best[1], sums[1][row]);
      }
    }
    __m256i* to = reinterpret_cast<__m256i*>(maxima + block * kQueryLanes);
    _mm256_storeu_si256(to, best[0]);
    _mm256_storeu_si256(to + 1, best[1]);
  }
}

void screen_i8(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, size_t tile_count,
               int32_t* const* maxima) {
  for (size_t t = 0; t < tile_count; ++t) {
    const bool shifted = tiles[t].shifts != nullptr;
    (shifted ? screen_tile<true> : screen_tile<false>)(blocks, block_count, tiles[t], maxima[t]);
  }
}

template <bool kShifted>
void hit_rows(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
              const int32_t* thresholds, uint16_t* hits) {
  for (size_t i = 0; i < count; ++i) {
    const __m256i* limits = reinterpret_cast<const __m256i*>(thresholds + i * kQueryLanes);
    const __m256i low = _mm256_loadu_si256(limits), high = _mm256_loadu_si256(limits + 1);
    for (size_t first = 0; first < kBlockRows; first += kRowsAtOnce) {
      __m256i sums[kHalves][kRowsAtOnce];
      score_rows<kShifted>(blocks, block_list[i] * kBlockRows + first, tile, sums);
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {  // AVX2 compares by "greater": below is threshold > score
        const int below_low = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(low, sums[0][row])));
        const int below_high = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(high, sums[1][row])));
        hits[i * kBlockRows + first + row] = static_cast<uint16_t>(~(below_low | below_high << 8));
      }
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
      __m256i sums[kHalves][kRowsAtOnce];
      for (size_t row = 0; row < kRowsAtOnce; ++row) sums[0][row] = sums[1][row] = _mm256_setzero_si256();
      add_dots(rows + first / 16 * tiles * kTileBytes + first % 16 * kTileDims, 0, tiles,
               plane == 0 ? high_tile : low_tile, sums);
      __m256i* to = reinterpret_cast<__m256i*>((plane == 0 ? high : low) + first * kQueryLanes);
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        _mm256_storeu_si256(to + 2 * row, sums[0][row]);
        _mm256_storeu_si256(to + 2 * row + 1, sums[1][row]);
      }
    }
  }
}

// Half a panel (4 rows) × 16 queries at a time: 8 accumulators.
void scan_f32(const float* tiles, size_t tile_count, size_t dims, const float* panel, const float* start,
              float* maxima) {
  for (size_t t = 0; t < tile_count; ++t) {
    const float* queries = tiles + t * dims * kQueryLanes;
    __m256 best[kHalves] = {_mm256_loadu_ps(maxima + t * kQueryLanes), _mm256_loadu_ps(maxima + t * kQueryLanes + 8)};
    for (size_t first = 0; first < kPanelRows; first += kRowsAtOnce) {
      __m256 sums[kHalves][kRowsAtOnce];
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) sums[0][row] = sums[1][row] = _mm256_set1_ps(start[first + row]);
      for (size_t k = 0; k < dims; ++k) {
        const __m256 low = _mm256_loadu_ps(queries + k * kQueryLanes);
        const __m256 high = _mm256_loadu_ps(queries + k * kQueryLanes + 8);
#pragma GCC unroll 4
        for (size_t row = 0; row < kRowsAtOnce; ++row) {
          const __m256 value = _mm256_broadcast_ss(panel + k * kPanelRows + first + row);
          sums[0][row] = _mm256_fmadd_ps(low, value, sums[0][row]);
          sums[1][row] = _mm256_fmadd_ps(high, value, sums[1][row]);
        }
      }
#pragma GCC unroll 4
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        best[0] = _mm256_max_ps(sums[0][row], best[0]);  // NaN: keeps best
        best[1] = _mm256_max_ps(sums[1][row], best[1]);
      }
    }
    _mm256_storeu_ps(maxima + t * kQueryLanes, best[0]);
    _mm256_storeu_ps(maxima + t * kQueryLanes + 8, best[1]);
  }
}
