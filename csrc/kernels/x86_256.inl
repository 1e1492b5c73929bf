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

// 8 rows × 32 codes → 8 words of 4 codes × 8 rows.
ONCEOVER_INLINE void words_of_rows(const int8_t* rows, __m256i* words) {
  __m256i pairs[8], fours[8];
#pragma GCC unroll 4
  for (size_t i = 0; i < 8; i += 2) {
    const __m256i upper = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows + i * kTileDims));
    const __m256i lower = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows + (i + 1) * kTileDims));
    pairs[i] = _mm256_unpacklo_epi32(upper, lower);
    pairs[i + 1] = _mm256_unpackhi_epi32(upper, lower);
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < 8; i += 4) {
    fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {  // fours[4 r + i]: words i and i + 4 of rows 4 r to 4 r + 3
    words[i] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
    words[i + 4] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
  }
}

// 8 rows from `slot` on against the lanes of a tile that can be hit, few of them: rows side by side instead of lanes.
template <bool kShifted>
ONCEOVER_INLINE void hit_rows_of_few(const CodeBlocks& blocks, size_t slot, const QueryTile& tile, uint32_t lanes,
                                     const int32_t* thresholds, uint16_t* hits) {
  const auto load = [](const int32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); };
  const __m256i norms = _mm256_srai_epi32(load(blocks.norms + slot), kUnit);
  const __m256i offset = _mm256_mullo_epi32(load(blocks.sums + slot), _mm256_set1_epi32(kOffset));
  const __m256i start = _mm256_sub_epi32(_mm256_setzero_si256(), kShifted ? offset : _mm256_add_epi32(offset, norms));
  const int8_t* rows = blocks.codes + slot / 16 * blocks.tiles * kTileBytes + slot % 16 * kTileDims;
  __m256i sums[kQueryLanes];
  for (size_t t = 0; t < blocks.tiles; ++t) {
    __m256i words[16];
    words_of_rows(rows + t * kTileBytes, words);
    words_of_rows(rows + t * kTileBytes + 32, words + 8);
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
      const auto lane = static_cast<size_t>(__builtin_ctz(left));
      const int8_t* query = tile.codes + t * kTileBytes + lane * 4;
      __m256i sum = t == 0 ? start : sums[lane];
#pragma GCC unroll 16
      for (size_t w = 0; w < 16; ++w) {
        int32_t four;
        __builtin_memcpy(&four, query + w * 64, 4);
        sum = add_products(sum, _mm256_set1_epi32(four), words[w]);
      }
      sums[lane] = sum;
    }
  }
  __m256i bits = _mm256_setzero_si256();
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const auto lane = static_cast<size_t>(__builtin_ctz(left));
    __m256i score = sums[lane];
    if (kShifted) score = _mm256_sub_epi32(_mm256_sll_epi32(score, _mm_cvtsi32_si128(tile.shifts[lane])), norms);
    const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(thresholds[lane]), score);
    bits = _mm256_or_si256(bits, _mm256_andnot_si256(below, _mm256_set1_epi32(1 << lane)));
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(hits),
                   _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)));
}

constexpr int kFewLanes = 10;  // from here on, rows one by one against all lanes are as fast

template <bool kShifted>
void hit_rows(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
              const int32_t* thresholds, uint16_t* hits) {
  for (size_t i = 0; i < count; ++i) {
    const __m256i* limits = reinterpret_cast<const __m256i*>(thresholds + i * kQueryLanes);
    const __m256i low = _mm256_loadu_si256(limits), high = _mm256_loadu_si256(limits + 1);
    const __m256i none = _mm256_set1_epi32(kNoHit);
    const auto lanes =
        static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(none, low))) |
                              _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(none, high))) << 8);
    if (__builtin_popcount(lanes) <= kFewLanes && blocks.first == 0) {
      for (size_t first = 0; first < kBlockRows; first += 8) {
        hit_rows_of_few<kShifted>(blocks, block_list[i] * kBlockRows + first, tile, lanes, thresholds + i * kQueryLanes,
                                  hits + i * kBlockRows + first);
      }
      continue;
    }
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
