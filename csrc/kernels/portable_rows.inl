// Part of portable.inl: bounds and distances of bank rows, and panels.

void best_blocks(const int32_t* maxima, size_t block_count, int32_t* best, int32_t* best_block) {
  for (size_t p = 0; p < kParts; ++p) {
    Ints value = load_as<Ints>(maxima + p * kWidth), at = {};
    for (size_t block = 1; block < block_count; ++block) {
      const Ints next = load_as<Ints>(maxima + block * kQueryLanes + p * kWidth);
      at = next > value ? splat(static_cast<int32_t>(block)) : at;
      value = next > value ? next : value;
    }
    store_to(best + p * kWidth, value);
    store_to(best_block + p * kWidth, at);
  }
}

// The score that base − below asks for, as a whole number.
ONCEOVER_INLINE Ints threshold_of(const Floats& base, const Floats& below) {
  constexpr float kLowest =
      -1073741760.0f;  // > −2^30: no empty slot passes; below every score of a row (≥ −2^29 − 2^25)
  constexpr float kHighest = 2147483520.0f;  // the largest float below 2^31: no score is that high
  Floats bound = base - below;
  bound = bound > kLowest ? bound : splat(kLowest);
  bound = bound < kHighest ? bound : splat(kHighest);
  return __builtin_convertvector(bound, Ints);
}

size_t find_hits(const int32_t* maxima, const float* block_errors, size_t* first, size_t last, const LaneBounds& bounds,
                 size_t capacity, uint32_t* blocks, int32_t* thresholds) {
  Floats screen_base[kParts], base[kParts], curve[kParts], reach[kParts];  // in registers, whatever is written below
  for (size_t p = 0; p < kParts; ++p) {
    screen_base[p] = load_as<Floats>(bounds.screen_base + p * kWidth);
    base[p] = load_as<Floats>(bounds.base + p * kWidth);
    curve[p] = load_as<Floats>(bounds.curve + p * kWidth);
    reach[p] = load_as<Floats>(bounds.reach + p * kWidth);
  }
  size_t count = 0, block = *first;
  for (; block < last && count < capacity; ++block) {
    Ints passed = {};
    for (size_t p = 0; p < kParts; ++p) {
      const Floats far = reach[p] + block_errors[block], below = curve[p] * far * far;
      const Ints pass = load_as<Ints>(maxima + block * kQueryLanes + p * kWidth) >= threshold_of(screen_base[p], below);
      store_to(thresholds + count * kQueryLanes + p * kWidth, pass ? threshold_of(base[p], below) : splat(kNoHit));
      passed |= pass;
    }
    blocks[count] = static_cast<uint32_t>(block);
    count += ONCEOVER_ANY(passed) ? 1 : 0;
  }
  *first = block;
  return count;
}

// ((p[j] + p[j+8]) for j < 8, then + 4, + 2, + 1.
ONCEOVER_INLINE float sum_of_partials(const float* partial) {
  const Four sums = (load_as<Four>(partial) + load_as<Four>(partial + 8)) +
                    (load_as<Four>(partial + 4) + load_as<Four>(partial + 12));
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}
ONCEOVER_INLINE double sum_of_partials(const double* partial) {
  const Two even =
      (load_as<Two>(partial) + load_as<Two>(partial + 8)) + (load_as<Two>(partial + 4) + load_as<Two>(partial + 12));
  const Two odd = (load_as<Two>(partial + 2) + load_as<Two>(partial + 10)) +
                  (load_as<Two>(partial + 6) + load_as<Two>(partial + 14));
  const Two sums = even + odd;
  return sums[0] + sums[1];
}

// The first two additions of sum_of_partials, in registers.
ONCEOVER_INLINE Four quarter_sums(const Floats (&sums)[kParts]) {
#if ONCEOVER_VECTOR_BYTES == 64
  return fold(sums[0]);
#elif ONCEOVER_VECTOR_BYTES == 32
  return fold(sums[0] + sums[1]);
#else
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
#endif
}
ONCEOVER_INLINE float sum_of_partials(const Floats (&sums)[kParts]) {
  const Four quarters = quarter_sums(sums);
  return (quarters[0] + quarters[2]) + (quarters[1] + quarters[3]);
}

// The first two additions for one pair of refine_rows. Ranks known when compiled let loops unroll; 0: as told.
template <size_t kRank1, size_t kRank2>
ONCEOVER_INLINE Four refine_row(const float* z, const float* weights, const CodeBlocks& blocks, const int8_t* refine,
                                size_t rank2_told, uint32_t pair) {
  const size_t rank1 = kRank1 == 0 ? blocks.tiles * kTileDims : kRank1, rank2 = kRank2 == 0 ? rank2_told : kRank2;
  const size_t slot = pair >> 4, lane = pair & 15;
  const float* query = z + lane * rank2;
  const int8_t* fine_codes = refine + slot * rank2;
  const int8_t* codes = blocks.codes + slot / 16 * 16 * rank1 + slot % 16 * kTileDims;
  Floats sums[kParts] = {};
#pragma GCC unroll 8
  for (size_t j = 0; j < rank1; j += kQueryLanes) {
    for (size_t p = 0; p < kParts; ++p) {
      const size_t at = j + p * kWidth;
      const Ints code = ONCEOVER_WIDEN_BYTES(codes + at / kTileDims * kTileBytes + at % kTileDims);
      const Ints fine = (code << 8) + ONCEOVER_WIDEN_BYTES(fine_codes + at);
      const Floats back = __builtin_convertvector(fine, Floats) * load_as<Floats>(weights + at);
      const Floats difference = load_as<Floats>(query + at) - back;
      sums[p] += difference * difference;
    }
  }
#pragma GCC unroll 8
  for (size_t j = rank1; j < rank2; j += kQueryLanes) {
    for (size_t p = 0; p < kParts; ++p) {
      const size_t at = j + p * kWidth;
      const Ints fine = ONCEOVER_WIDEN_BYTES(fine_codes + at);
      const Floats back = __builtin_convertvector(fine, Floats) * load_as<Floats>(weights + at);
      const Floats difference = load_as<Floats>(query + at) - back;
      sums[p] += difference * difference;
    }
  }
  return quarter_sums(sums);
}

// Four pairs at a time share the last additions: a lane each.
template <size_t kRank1, size_t kRank2>
void refine_rows_of(const float* z, const float* weights, const CodeBlocks& blocks, const int8_t* refine, size_t rank2,
                    const uint32_t* pairs, size_t count, float* squared) {
  constexpr size_t kGroup = 4, kAhead = 8;  // pairs whose bytes are on their way while others are worked on
  size_t i = 0;
  for (; i + kGroup <= count; i += kGroup) {
    for (size_t ahead = i + kAhead; ahead < i + kAhead + kGroup && ahead < count; ++ahead) {
      const int8_t* next = refine + (pairs[ahead] >> 4) * rank2;
      for (size_t line = 0; line < rank2; line += 64) __builtin_prefetch(next + line);
    }
    Four quarters[kGroup];
#pragma GCC unroll 4
    for (size_t g = 0; g < kGroup; ++g)
      quarters[g] = refine_row<kRank1, kRank2>(z, weights, blocks, refine, rank2, pairs[i + g]);
    transpose_4x4(quarters);
    store_to(squared + i, (quarters[0] + quarters[2]) + (quarters[1] + quarters[3]));
  }
  for (; i < count; ++i) {
    const Four quarters = refine_row<kRank1, kRank2>(z, weights, blocks, refine, rank2, pairs[i]);
    squared[i] = (quarters[0] + quarters[2]) + (quarters[1] + quarters[3]);
  }
}

void refine_rows(const float* z, const float* weights, const CodeBlocks& blocks, const int8_t* refine, size_t rank2,
                 const uint32_t* pairs, size_t count, float* squared) {
  const bool usual = blocks.tiles == 1 && rank2 == 2 * kTileDims;
  (usual ? refine_rows_of<kTileDims, 2 * kTileDims> : refine_rows_of<0, 0>)(z, weights, blocks, refine, rank2, pairs,
                                                                            count, squared);
}

float squared_f32(const float* a, const float* b, size_t dims) {
  Floats sums[kParts] = {};
  size_t i = 0;
  for (; i + kQueryLanes <= dims; i += kQueryLanes) {
    for (size_t p = 0; p < kParts; ++p) {
      const Floats difference = load_as<Floats>(a + i + p * kWidth) - load_as<Floats>(b + i + p * kWidth);
      sums[p] += difference * difference;
    }
  }
  if (i == dims) return sum_of_partials(sums);
  float partial[kQueryLanes];
  __builtin_memcpy(partial, sums, sizeof partial);
  for (size_t j = 0; i + j < dims; ++j) {
    const float difference = a[i + j] - b[i + j];
    partial[j] += difference * difference;
  }
  return sum_of_partials(partial);
}

double squared_f64(const float* a, const float* b, size_t dims) {
  Doubles sums[kWideParts] = {};
  size_t i = 0;
  for (; i + kQueryLanes <= dims; i += kQueryLanes) {
    for (size_t p = 0; p < kWideParts; ++p) {
      const Doubles difference = __builtin_convertvector(load_as<HalfFloats>(a + i + p * kWide), Doubles) -
                                 __builtin_convertvector(load_as<HalfFloats>(b + i + p * kWide), Doubles);
      sums[p] += difference * difference;
    }
  }
  double partial[kQueryLanes];
  __builtin_memcpy(partial, sums, sizeof partial);
  for (size_t j = 0; i + j < dims; ++j) {
    const double difference = static_cast<double>(a[i + j]) - static_cast<double>(b[i + j]);
    partial[j] += difference * difference;
  }
  return sum_of_partials(partial);
}

void pack_panel_f32(const float* const* rows, const float* mean, size_t dims, float* panel) {
  for (size_t half = 0; half < kPanelRows; half += 4) {
    // A null row reads the mean in its place, which leaves zeros.
    const float* from[4];
    for (size_t r = 0; r < 4; ++r) from[r] = rows[half + r] != nullptr ? rows[half + r] : mean;
    size_t k = 0;
    for (; k + 4 <= dims; k += 4) {
      const Four middle = load_as<Four>(mean + k);
      Four square[4];
      for (size_t r = 0; r < 4; ++r) square[r] = load_as<Four>(from[r] + k) - middle;
      transpose_4x4(square);
      for (size_t j = 0; j < 4; ++j) store_to(panel + (k + j) * kPanelRows + half, square[j]);
    }
    for (; k < dims; ++k) {
      for (size_t r = 0; r < 4; ++r) panel[k * kPanelRows + half + r] = from[r][k] - mean[k];
    }
  }
}

// Four points at a time share the loads of the center, and the last additions: a lane each.
size_t lower_to_center_f32(const float* points, size_t row_count, size_t dims, const float* center,
                           float* min_squared) {
  constexpr size_t kGroup = 4;
  const size_t whole = dims / kQueryLanes * kQueryLanes, left = dims - whole;
  float tails[kGroup + 1][kQueryLanes] = {};  // padded with zeros, which add nothing
  __builtin_memcpy(tails[kGroup], center + whole, left * sizeof(float));
  size_t farthest = 0;
  float largest = 0;
  for (size_t row = 0; row < row_count; row += kGroup) {
    const size_t valid = row_count - row < kGroup ? row_count - row : kGroup;
    const float* vectors[kGroup];
    for (size_t v = 0; v < kGroup; ++v) vectors[v] = points + (row + (v < valid ? v : 0)) * dims;
    Floats sums[kGroup][kParts] = {};
    for (size_t i = 0; i < whole; i += kQueryLanes) {
      for (size_t p = 0; p < kParts; ++p) {
        const Floats other = load_as<Floats>(center + i + p * kWidth);
        for (size_t v = 0; v < kGroup; ++v) {
          const Floats difference = load_as<Floats>(vectors[v] + i + p * kWidth) - other;
          sums[v][p] += difference * difference;
        }
      }
    }
    if (left > 0) {
      for (size_t v = 0; v < kGroup; ++v) {
        for (size_t j = 0; j < left; ++j) tails[v][j] = vectors[v][whole + j];
      }
      for (size_t p = 0; p < kParts; ++p) {
        const Floats other = load_as<Floats>(tails[kGroup] + p * kWidth);
        for (size_t v = 0; v < kGroup; ++v) {
          const Floats difference = load_as<Floats>(tails[v] + p * kWidth) - other;
          sums[v][p] += difference * difference;
        }
      }
    }
    Four quarters[kGroup] = {quarter_sums(sums[0]), quarter_sums(sums[1]), quarter_sums(sums[2]),
                             quarter_sums(sums[3])};
    transpose_4x4(quarters);
    float squared[kGroup];
    store_to(squared, (quarters[0] + quarters[2]) + (quarters[1] + quarters[3]));
    for (size_t v = 0; v < valid; ++v) {
      const float least = squared[v] < min_squared[row + v] ? squared[v] : min_squared[row + v];
      min_squared[row + v] = least;
      if (row + v == 0 || least > largest) {
        largest = least;
        farthest = row + v;
      }
    }
  }
  return farthest;
}

// scan_f32 without fused multiply-add, for instruction sets that bring none of their own.
[[maybe_unused]] void portable_scan_f32(const float* tiles, size_t tile_count, size_t dims, const float* panel,
                                        const float* start, float* maxima) {
  for (size_t tile = 0; tile < tile_count; ++tile) {
    const float* queries = tiles + tile * dims * kQueryLanes;
    for (size_t p = 0; p < kParts; ++p) {
      Floats sums[kPanelRows];
      for (size_t row = 0; row < kPanelRows; ++row) sums[row] = splat(start[row]);
      for (size_t k = 0; k < dims; ++k) {
        const Floats values = load_as<Floats>(queries + k * kQueryLanes + p * kWidth);
        for (size_t row = 0; row < kPanelRows; ++row) sums[row] += values * panel[k * kPanelRows + row];
      }
      float* to = maxima + tile * kQueryLanes + p * kWidth;
      Floats best = load_as<Floats>(to);
      for (size_t row = 0; row < kPanelRows; ++row) best = sums[row] > best ? sums[row] : best;
      store_to(to, best);
    }
  }
}
