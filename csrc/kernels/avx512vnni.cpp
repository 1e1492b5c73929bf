// AVX-512 with VNNI: what Intel servers since Cascade Lake, laptops since Ice Lake and AMD since Zen 4 have.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header leaves the ignored operand of unmasked intrinsics unset and then warns of it (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "kernels/kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#endif

namespace onceover {
namespace {

#include "kernels/x86_512_bytes.inl"
#define ONCEOVER_VECTOR_BYTES 64
#include "kernels/portable.inl"
#include "kernels/x86_512.inl"

}  // namespace

extern const KernelTable avx512vnni_kernels;
const KernelTable avx512vnni_kernels = {"avx512vnni",
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

}  // namespace onceover

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
