// AVX2 with FMA: x86 since Haswell (2013). VPMADDUBSW adds two products in int16, so query codes are kept to ±63 on a
// step twice as coarse (unit_shift 1): 2 · 127 · 127 = 32258 < 2^15.
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace onceover {
namespace {

#include "kernels/x86_256_bytes.inl"
#define ONCEOVER_VECTOR_BYTES 32
#include "kernels/portable.inl"

constexpr int32_t kLimit = 63, kOffset = 64, kUnit = 1;

ONCEOVER_INLINE __m256i add_products(__m256i sum, __m256i query, __m256i bank) {
  const __m256i pairs = _mm256_maddubs_epi16(query, bank);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "kernels/x86_256.inl"

// Scalar's codes, whole: VPMADDUBSW takes the signs of the query to the bank, 2 · 128 · 127 = 32512 < 2^15.
namespace whole {

constexpr int32_t kLimit = 127, kOffset = 0, kUnit = 0;

ONCEOVER_INLINE __m256i add_products(__m256i sum, __m256i query, __m256i bank) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(query), _mm256_sign_epi8(bank, query));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "kernels/x86_256.inl"

constexpr KernelTable kCounting = {
    "avx2 counting", kLimit,    kOffset,     kUnit,  4,        16,
    nullptr,         screen_i8, hit_rows_i8, dot_i8, scan_f32, ONCEOVER_PORTABLE_KERNELS};

}  // namespace whole
}  // namespace

extern const KernelTable avx2_kernels;
const KernelTable avx2_kernels = {"avx2",      kLimit, kOffset,           kUnit,
                                  4,           16,     &whole::kCounting, screen_i8,
                                  hit_rows_i8, dot_i8, scan_f32,          ONCEOVER_PORTABLE_KERNELS};

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
