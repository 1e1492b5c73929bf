// AVX-VNNI: the 256-bit VPDPBUSD of Intel's client and Atom lines since Alder Lake, which have no AVX-512.
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/kernel_table.h"

// Tests build this file a second time with ONCEOVER_AVXVNNI_BY_AVX512, in which the same instruction is encoded as
// AVX-512 does, so that the file also runs where only that encoding exists.
#if defined(ONCEOVER_AVXVNNI_BY_AVX512)
#define ONCEOVER_DPBUSD _mm256_dpbusd_epi32
#else
#define ONCEOVER_DPBUSD _mm256_dpbusd_avx_epi32
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#elif defined(ONCEOVER_AVXVNNI_BY_AVX512)
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512vl,avx512vnni,prefer-vector-width=256")
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avxvnni")
#endif

namespace onceover {
namespace {

#include "kernels/x86_256_bytes.inl"
#define ONCEOVER_VECTOR_BYTES 32
#include "kernels/portable.inl"

constexpr int32_t kLimit = 127, kOffset = 128, kUnit = 0;

ONCEOVER_INLINE __m256i add_products(__m256i sum, __m256i query, __m256i bank) {
  return ONCEOVER_DPBUSD(sum, query, bank);
}

#include "kernels/x86_256.inl"

}  // namespace

extern const KernelTable avxvnni_kernels;
const KernelTable avxvnni_kernels = {"avxvnni", kLimit,    kOffset,     kUnit,  4,        16,
                                     nullptr,   screen_i8, hit_rows_i8, dot_i8, scan_f32, ONCEOVER_PORTABLE_KERNELS};

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
