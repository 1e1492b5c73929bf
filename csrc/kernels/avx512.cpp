// AVX-512 kernels: the contract's 16 partial sums are one register, and eight vectors are compared with a ninth at a
// time. No FMA: the contract rounds multiply and add separately.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header leaves the ignored operand of unmasked intrinsics unset and then warns of it (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif

namespace onceover {
namespace {

constexpr size_t kGroup = 8;      // vectors compared with a ninth at a time
constexpr size_t kPartials = 16;  // one register

inline __m512 add_square(__m512 sum, __m512 a, __m512 b) {
  const __m512 difference = _mm512_sub_ps(a, b);
  return _mm512_add_ps(sum, _mm512_mul_ps(difference, difference));
}

// The contract's tree for four vectors at once: 16 partial sums each → four squared distances.
inline __m128 reduce(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));  // + 8
  const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
  const __m512 four = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));  // + 4
  const __m512 two = _mm512_add_ps(four, _mm512_shuffle_ps(four, four, 0xEE));                                // + 2
  const __m512 one = _mm512_add_ps(two, _mm512_shuffle_ps(two, two, 0x55));                                   // + 1
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  return _mm512_castps512_ps128(_mm512_permutexvar_ps(first, one));
}

inline __m256 squared_distances(const float* const vectors[kGroup], const float* other, size_t dims) {
  __m512 sum[kGroup];
  for (size_t v = 0; v < kGroup; ++v) sum[v] = _mm512_setzero_ps();
  size_t i = 0;
  for (; i + kPartials <= dims; i += kPartials) {
    const __m512 values = _mm512_loadu_ps(other + i);
    for (size_t v = 0; v < kGroup; ++v) sum[v] = add_square(sum[v], _mm512_loadu_ps(vectors[v] + i), values);
  }
  if (i < dims) {
    const auto mask = static_cast<__mmask16>((1u << (dims - i)) - 1);
    const __m512 values = _mm512_maskz_loadu_ps(mask, other + i);
    for (size_t v = 0; v < kGroup; ++v) {
      sum[v] = add_square(sum[v], _mm512_maskz_loadu_ps(mask, vectors[v] + i), values);
    }
  }
  return _mm256_insertf128_ps(_mm256_castps128_ps256(reduce(sum[0], sum[1], sum[2], sum[3])),
                              reduce(sum[4], sum[5], sum[6], sum[7]), 1);
}

void nearest_row_f32(const float* queries, size_t query_count, const float* bank, size_t row_count, size_t dims,
                     uint32_t first_index, float* best_squared, uint32_t* best_index) {
  for (size_t q = 0; q < query_count; q += kGroup) {
    const size_t valid = query_count - q < kGroup ? query_count - q : kGroup;
    const float* vectors[kGroup];
    alignas(32) float squared[kGroup];
    alignas(32) uint32_t index[kGroup];
    for (size_t v = 0; v < kGroup; ++v) {
      const size_t source = q + (v < valid ? v : 0);  // a short group repeats its first query
      vectors[v] = queries + source * dims;
      squared[v] = best_squared[source];
      index[v] = best_index[source];
    }
    __m256 best = _mm256_load_ps(squared);
    __m256 best_at = _mm256_castsi256_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(index)));
    for (size_t row = 0; row < row_count; ++row) {
      const __m256 found = squared_distances(vectors, bank + row * dims, dims);
      const __m256 closer = _mm256_cmp_ps(found, best, _CMP_LT_OQ);  // false for NaN
      const __m256i at = _mm256_set1_epi32(static_cast<int>(first_index + static_cast<uint32_t>(row)));
      best = _mm256_blendv_ps(best, found, closer);
      best_at = _mm256_blendv_ps(best_at, _mm256_castsi256_ps(at), closer);  // moves bits, computes nothing
    }
    _mm256_store_ps(squared, best);
    _mm256_store_si256(reinterpret_cast<__m256i*>(index), _mm256_castps_si256(best_at));
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
    alignas(32) float squared[kGroup];
    _mm256_store_ps(squared, squared_distances(vectors, center, dims));
    for (size_t v = 0; v < valid; ++v) {
      if (squared[v] < min_squared[row + v]) min_squared[row + v] = squared[v];
      if (min_squared[row + v] > min_squared[farthest]) farthest = row + v;
    }
  }
  return farthest;
}

}  // namespace

extern const KernelTable avx512_kernels;
const KernelTable avx512_kernels = {"avx512", nearest_row_f32, lower_to_center_f32};

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
