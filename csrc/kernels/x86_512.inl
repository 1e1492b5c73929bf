// 512-bit bodies shared by avx512vnni.cpp and amx.cpp: dot products by VPDPBUSD (unsigned query codes, signed bank
// codes), the fused float scan. Included as portable.inl is, after it.
// Register plan: 8 rows × 2 tiles of 16 queries are 16 accumulators; a row's word of 4 codes is broadcast once for
// both.

constexpr size_t kRowsAtOnce = 8;
constexpr int32_t kVnniOffset = 128;

template <size_t kTiles>
ONCEOVER_INLINE void add_dots(const int8_t* rows, size_t first, size_t tiles, const int8_t* const (&queries)[kTiles],
                              __m512i (&sums)[kTiles][kRowsAtOnce]) {
  size_t word = first % kTileDims / 4;  // a multiple of 4, as first is of 16
  for (size_t t = first / kTileDims; t < tiles; ++t, word = 0) {
    const int8_t* codes = rows + t * kTileBytes;
    for (; word < kTileDims / 4; word += 4) {
#pragma GCC unroll 4
      for (size_t w = word; w < word + 4; ++w) {
        __m512i values[kTiles];
#pragma GCC unroll 2
        for (size_t q = 0; q < kTiles; ++q) values[q] = _mm512_load_si512(queries[q] + t * kTileBytes + w * 64);
#pragma GCC unroll 8
        for (size_t row = 0; row < kRowsAtOnce; ++row) {
          int32_t four;
          __builtin_memcpy(&four, codes + row * kTileDims + w * 4, 4);
          const __m512i broadcast = _mm512_set1_epi32(four);
#pragma GCC unroll 2
          for (size_t q = 0; q < kTiles; ++q) sums[q][row] = _mm512_dpbusd_epi32(sums[q][row], values[q], broadcast);
        }
      }
    }
  }
}

// Scores of 8 rows, starting from `slot`. The offset of the query codes is taken out through the start value.
template <size_t kTiles, bool kShifted>
ONCEOVER_INLINE void score_rows(const CodeBlocks& blocks, size_t slot, const int8_t* const (&queries)[kTiles],
                                const __m512i (&shifts)[kTiles], __m512i (&sums)[kTiles][kRowsAtOnce]) {
#pragma GCC unroll 8
  for (size_t row = 0; row < kRowsAtOnce; ++row) {
    const int32_t offset = kVnniOffset * blocks.sums[slot + row];
    const __m512i start = _mm512_set1_epi32(-(kShifted ? offset : offset + blocks.norms[slot + row]));
#pragma GCC unroll 2
    for (size_t q = 0; q < kTiles; ++q) sums[q][row] = start;
  }
  const int8_t* rows = blocks.codes + slot / 16 * blocks.tiles * kTileBytes + slot % 16 * kTileDims;
  add_dots<kTiles>(rows, blocks.first, blocks.tiles, queries, sums);
  if (kShifted) {
#pragma GCC unroll 8
    for (size_t row = 0; row < kRowsAtOnce; ++row) {
      const __m512i norm = _mm512_set1_epi32(blocks.norms[slot + row]);
#pragma GCC unroll 2
      for (size_t q = 0; q < kTiles; ++q) {
        sums[q][row] = _mm512_sub_epi32(_mm512_sllv_epi32(sums[q][row], shifts[q]), norm);
      }
    }
  }
}

template <size_t kTiles, bool kShifted>
void screen_tiles(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, int32_t* const* maxima) {
  const int8_t* queries[kTiles];
  __m512i shifts[kTiles];
  for (size_t q = 0; q < kTiles; ++q) {
    queries[q] = tiles[q].codes;
    shifts[q] = kShifted && tiles[q].shifts != nullptr ? _mm512_loadu_si512(tiles[q].shifts) : _mm512_setzero_si512();
  }
  for (size_t block = 0; block < block_count; ++block) {
    __m512i best[kTiles];
    for (size_t q = 0; q < kTiles; ++q) best[q] = _mm512_set1_epi32(INT32_MIN);
    for (size_t first = 0; first < kBlockRows; first += kRowsAtOnce) {
      __m512i sums[kTiles][kRowsAtOnce];
      score_rows<kTiles, kShifted>(blocks, block * kBlockRows + first, queries, shifts, sums);
#pragma GCC unroll 8
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
#pragma GCC unroll 2
        for (size_t q = 0; q < kTiles; ++q) best[q] = _mm512_max_epi32(best[q], sums[q][row]);
      }
    }
    for (size_t q = 0; q < kTiles; ++q) _mm512_storeu_si512(maxima[q] + block * kQueryLanes, best[q]);
  }
}

void vnni_screen_i8(const CodeBlocks& blocks, size_t block_count, const QueryTile* tiles, size_t tile_count,
                    int32_t* const* maxima) {
  size_t t = 0;
  for (; t + 2 <= tile_count; t += 2) {
    const bool shifted = tiles[t].shifts != nullptr || tiles[t + 1].shifts != nullptr;
    (shifted ? screen_tiles<2, true> : screen_tiles<2, false>)(blocks, block_count, tiles + t, maxima + t);
  }
  if (t < tile_count) {
    const bool shifted = tiles[t].shifts != nullptr;
    (shifted ? screen_tiles<1, true> : screen_tiles<1, false>)(blocks, block_count, tiles + t, maxima + t);
  }
}

// 16 rows × 64 codes → 16 words of 4 codes × 16 rows.
ONCEOVER_INLINE void words_of_rows(const int8_t* rows, __m512i (&words)[16]) {
  __m512i pairs[16], fours[16];
#pragma GCC unroll 8
  for (size_t i = 0; i < 16; i += 2) {
    const __m512i upper = _mm512_load_si512(rows + i * kTileDims),
                  lower = _mm512_load_si512(rows + (i + 1) * kTileDims);
    pairs[i] = _mm512_unpacklo_epi32(upper, lower);
    pairs[i + 1] = _mm512_unpackhi_epi32(upper, lower);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {  // fours[4 r + i]: words i, i + 4, i + 8, i + 12 of rows 4 r to 4 r + 3
    const __m512i even_low = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0xdd);
    const __m512i even_high = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0x88);
    const __m512i odd_high = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0xdd);
    words[i] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    words[i + 8] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    words[i + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    words[i + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
}

// 16 rows from `slot` on against the lanes of a tile that can be hit, few of them: rows side by side instead of lanes.
template <bool kShifted>
ONCEOVER_INLINE void hit_rows_of_few(const CodeBlocks& blocks, size_t slot, const QueryTile& tile, uint32_t lanes,
                                     const int32_t* thresholds, uint16_t* hits) {
  const __m512i norms = _mm512_loadu_si512(blocks.norms + slot);
  const __m512i offset = _mm512_mullo_epi32(_mm512_loadu_si512(blocks.sums + slot), _mm512_set1_epi32(kVnniOffset));
  const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), kShifted ? offset : _mm512_add_epi32(offset, norms));
  const int8_t* rows = blocks.codes + slot * kTileDims * blocks.tiles;
  __m512i sums[kQueryLanes];
  for (size_t t = 0; t < blocks.tiles; ++t) {
    __m512i words[16];
    words_of_rows(rows + t * kTileBytes, words);
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
      const auto lane = static_cast<size_t>(__builtin_ctz(left));
      const int8_t* query = tile.codes + t * kTileBytes + lane * 4;
      __m512i sum = t == 0 ? start : sums[lane];
#pragma GCC unroll 16
      for (size_t w = 0; w < 16; ++w) {
        int32_t four;
        __builtin_memcpy(&four, query + w * 64, 4);
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(four), words[w]);
      }
      sums[lane] = sum;
    }
  }
  __m256i bits = _mm256_setzero_si256();
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const auto lane = static_cast<size_t>(__builtin_ctz(left));
    __m512i score = sums[lane];
    if (kShifted) score = _mm512_sub_epi32(_mm512_sllv_epi32(score, _mm512_set1_epi32(tile.shifts[lane])), norms);
    const __mmask16 hit = _mm512_cmpge_epi32_mask(score, _mm512_set1_epi32(thresholds[lane]));
    bits = _mm256_or_si256(bits, _mm256_maskz_set1_epi16(hit, static_cast<int16_t>(1 << lane)));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(hits), bits);
}

constexpr int kFewLanes = 8;  // from here on, rows one by one against all lanes are as fast

template <bool kShifted>
void hit_rows(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
              const int32_t* thresholds, uint16_t* hits) {
  const int8_t* const queries[1] = {tile.codes};
  const __m512i shifts[1] = {kShifted ? _mm512_loadu_si512(tile.shifts) : _mm512_setzero_si512()};
  for (size_t i = 0; i < count; ++i) {
    if (i + 1 < count) {
      const int8_t* next = blocks.codes + block_list[i + 1] * kBlockRows * kTileDims * blocks.tiles;
      for (size_t line = 0; line < kBlockRows * blocks.tiles; ++line) _mm_prefetch(next + line * 64, _MM_HINT_T0);
    }
    const __m512i threshold = _mm512_loadu_si512(thresholds + i * kQueryLanes);
    // By way of a vector: where GCC 12 spills the two bytes of a mask, it reads four, the upper two of which are
    // anything.
    const __mmask16 hopeful = _mm512_cmplt_epi32_mask(threshold, _mm512_set1_epi32(kNoHit));
    const auto lanes = static_cast<uint32_t>(_mm_movemask_epi8(_mm_movm_epi8(hopeful)));
    if (__builtin_popcount(lanes) <= kFewLanes && blocks.first == 0) {
      for (size_t first = 0; first < kBlockRows; first += 16) {
        hit_rows_of_few<kShifted>(blocks, block_list[i] * kBlockRows + first, tile, lanes, thresholds + i * kQueryLanes,
                                  hits + i * kBlockRows + first);
      }
      continue;
    }
    for (size_t first = 0; first < kBlockRows; first += kRowsAtOnce) {
      __m512i sums[1][kRowsAtOnce];
      score_rows<1, kShifted>(blocks, block_list[i] * kBlockRows + first, queries, shifts, sums);
#pragma GCC unroll 8
      for (size_t row = 0; row < kRowsAtOnce; ++row) {
        hits[i * kBlockRows + first + row] = _mm512_cmpge_epi32_mask(sums[0][row], threshold);
      }
    }
  }
}

void vnni_hit_rows_i8(const CodeBlocks& blocks, const QueryTile& tile, const uint32_t* block_list, size_t count,
                      const int32_t* thresholds, uint16_t* hits) {
  (tile.shifts != nullptr ? hit_rows<true> : hit_rows<false>)(blocks, tile, block_list, count, thresholds, hits);
}

void vnni_dot_i8(const int8_t* rows, size_t row_count, size_t tiles, const int8_t* high_tile, const int8_t* low_tile,
                 int32_t* high, int32_t* low) {
  const int8_t* const queries[2] = {high_tile, low_tile};
  for (size_t first = 0; first < row_count; first += kRowsAtOnce) {
    __m512i sums[2][kRowsAtOnce];
    for (size_t row = 0; row < kRowsAtOnce; ++row) sums[0][row] = sums[1][row] = _mm512_setzero_si512();
    add_dots<2>(rows + first / 16 * tiles * kTileBytes + first % 16 * kTileDims, 0, tiles, queries, sums);
    for (size_t row = 0; row < kRowsAtOnce; ++row) {
      _mm512_storeu_si512(high + (first + row) * kQueryLanes, sums[0][row]);
      _mm512_storeu_si512(low + (first + row) * kQueryLanes, sums[1][row]);
    }
  }
}

template <size_t kTiles>
void scan_tiles(const float* tiles, size_t dims, const float* panel, const float* start, float* maxima) {
  __m512 sums[kTiles][kPanelRows];
#pragma GCC unroll 8
  for (size_t row = 0; row < kPanelRows; ++row) {
#pragma GCC unroll 3
    for (size_t t = 0; t < kTiles; ++t) sums[t][row] = _mm512_set1_ps(start[row]);
  }
  for (size_t k = 0; k < dims; ++k) {
    __m512 values[kTiles];
#pragma GCC unroll 3
    for (size_t t = 0; t < kTiles; ++t) values[t] = _mm512_loadu_ps(tiles + (t * dims + k) * kQueryLanes);
#pragma GCC unroll 8
    for (size_t row = 0; row < kPanelRows; ++row) {
      const __m512 value = _mm512_set1_ps(panel[k * kPanelRows + row]);
#pragma GCC unroll 3
      for (size_t t = 0; t < kTiles; ++t) sums[t][row] = _mm512_fmadd_ps(values[t], value, sums[t][row]);
    }
  }
#pragma GCC unroll 3
  for (size_t t = 0; t < kTiles; ++t) {
    __m512 best = _mm512_loadu_ps(maxima + t * kQueryLanes);
#pragma GCC unroll 8
    for (size_t row = 0; row < kPanelRows; ++row) best = _mm512_max_ps(sums[t][row], best);  // NaN: keeps best
    _mm512_storeu_ps(maxima + t * kQueryLanes, best);
  }
}

void scan_f32(const float* tiles, size_t tile_count, size_t dims, const float* panel, const float* start,
              float* maxima) {
  size_t t = 0;
  for (; t + 3 <= tile_count; t += 3) {
    scan_tiles<3>(tiles + t * dims * kQueryLanes, dims, panel, start, maxima + t * kQueryLanes);
  }
  if (tile_count - t == 2) {
    scan_tiles<2>(tiles + t * dims * kQueryLanes, dims, panel, start, maxima + t * kQueryLanes);
  } else if (tile_count - t == 1) {
    scan_tiles<1>(tiles + t * dims * kQueryLanes, dims, panel, start, maxima + t * kQueryLanes);
  }
}
