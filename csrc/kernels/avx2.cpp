// AVX2 kernels: four vectors are compared with a fifth at a time, two 8-lane registers of partial sums each, so that
// a bank row is loaded once for four queries. No FMA: the contract rounds multiply and add separately.
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

namespace onceover {
namespace {

constexpr size_t kGroup = 4;      // vectors compared with a fifth at a time
constexpr size_t kPartials = 16;  // two registers

// Loads of a tail of n < 16 elements take lanes i < n: 16 − n elements into this table begin the lane masks.
alignas(64) const int32_t kTailMask[2 * kPartials] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                                      0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0};

inline __m256 add_square(__m256 sum, __m256 a, __m256 b) {
  const __m256 difference = _mm256_sub_ps(a, b);
  return _mm256_add_ps(sum, _mm256_mul_ps(difference, difference));
}

// The contract's tree for four vectors at once: partial sums low (j < 8) and high (j ≥ 8) → four squared distances.
inline __m128 reduce(const __m256 low[kGroup], const __m256 high[kGroup]) {
  const __m256 s0 = _mm256_add_ps(low[0], high[0]);  // p[j] + p[j+8]
  const __m256 s1 = _mm256_add_ps(low[1], high[1]);
  const __m256 s2 = _mm256_add_ps(low[2], high[2]);
  const __m256 s3 = _mm256_add_ps(low[3], high[3]);
  const __m256 s01 = _mm256_add_ps(_mm256_permute2f128_ps(s0, s1, 0x20), _mm256_permute2f128_ps(s0, s1, 0x31));  // + 4
  const __m256 s23 = _mm256_add_ps(_mm256_permute2f128_ps(s2, s3, 0x20), _mm256_permute2f128_ps(s2, s3, 0x31));
  const __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(s01, s23, 0x44), _mm256_shuffle_ps(s01, s23, 0xEE));  // + 2
  const __m256 sums = _mm256_add_ps(_mm256_shuffle_ps(pairs, pairs, 0x88), _mm256_shuffle_ps(pairs, pairs, 0xDD));
  // sums: lanes (0, 2, …) in the low half, (1, 3, …) in the high half.
  return _mm_unpacklo_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

inline __m128 squared_distances(const float* const vectors[kGroup], const float* other, size_t dims) {
  __m256 low[kGroup], high[kGroup];
  for (size_t v = 0; v < kGroup; ++v) low[v] = high[v] = _mm256_setzero_ps();
  size_t i = 0;
  for (; i + kPartials <= dims; i += kPartials) {
    const __m256 other_low = _mm256_loadu_ps(other + i);
    const __m256 other_high = _mm256_loadu_ps(other + i + 8);
    for (size_t v = 0; v < kGroup; ++v) {
      low[v] = add_square(low[v], _mm256_loadu_ps(vectors[v] + i), other_low);
      high[v] = add_square(high[v], _mm256_loadu_ps(vectors[v] + i + 8), other_high);
    }
  }
  if (i < dims) {
    const int32_t* mask = kTailMask + (kPartials - (dims - i));
    const __m256i mask_low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask));
    const __m256i mask_high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask + 8));
    // With at most 8 elements left the high address may lie past the array: it is then not even formed.
    const size_t high_at = dims - i > 8 ? i + 8 : i;
    const __m256 other_low = _mm256_maskload_ps(other + i, mask_low);
    const __m256 other_high = _mm256_maskload_ps(other + high_at, mask_high);
    for (size_t v = 0; v < kGroup; ++v) {
      low[v] = add_square(low[v], _mm256_maskload_ps(vectors[v] + i, mask_low), other_low);
      high[v] = add_square(high[v], _mm256_maskload_ps(vectors[v] + high_at, mask_high), other_high);
    }
  }
  return reduce(low, high);
}

void nearest_row_f32(const float* queries, size_t query_count, const float* bank, size_t row_count, size_t dims,
                     uint32_t first_index, float* best_squared, uint32_t* best_index) {
  for (size_t q = 0; q < query_count; q += kGroup) {
    const size_t valid = query_count - q < kGroup ? query_count - q : kGroup;
    const float* vectors[kGroup];
    alignas(16) float squared[kGroup];
    alignas(16) uint32_t index[kGroup];
    for (size_t v = 0; v < kGroup; ++v) {
      const size_t source = q + (v < valid ? v : 0);  // a short group repeats its first query
      vectors[v] = queries + source * dims;
      squared[v] = best_squared[source];
      index[v] = best_index[source];
    }
    __m128 best = _mm_load_ps(squared);
    __m128i best_at = _mm_load_si128(reinterpret_cast<const __m128i*>(index));
    for (size_t row = 0; row < row_count; ++row) {
      const __m128 found = squared_distances(vectors, bank + row * dims, dims);
      const __m128 closer = _mm_cmplt_ps(found, best);  // false for NaN
      const __m128i at = _mm_set1_epi32(static_cast<int>(first_index + static_cast<uint32_t>(row)));
      best = _mm_blendv_ps(best, found, closer);
      best_at = _mm_blendv_epi8(best_at, at, _mm_castps_si128(closer));
    }
    _mm_store_ps(squared, best);
    _mm_store_si128(reinterpret_cast<__m128i*>(index), best_at);
    for (size_t v = 0; v < valid; ++v) {
      best_squared[q + v] = squared[v];
      best_index[q + v] = index[v];
    }
  }
}

size_t lower_to_center_f32(const float* points, size_t row_count, size_t dims, const float* center,
                           float* min_squared) {
  size_t farthest = 0;
  for (size_t row = 0; row < row_count; row += kGroup) {
    const size_t valid = row_count - row < kGroup ? row_count - row : kGroup;
    const float* vectors[kGroup];
    for (size_t v = 0; v < kGroup; ++v) vectors[v] = points + (row + (v < valid ? v : 0)) * dims;
    alignas(16) float squared[kGroup];
    _mm_store_ps(squared, squared_distances(vectors, center, dims));
    for (size_t v = 0; v < valid; ++v) {
      if (squared[v] < min_squared[row + v]) min_squared[row + v] = squared[v];
      if (min_squared[row + v] > min_squared[farthest]) farthest = row + v;
    }
  }
  return farthest;
}

}  // namespace

extern const KernelTable avx2_kernels;
const KernelTable avx2_kernels = {"avx2", nearest_row_f32, lower_to_center_f32};

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
