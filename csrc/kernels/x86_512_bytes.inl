// What portable.inl takes from 512-bit x86: bytes to and from 32-bit lanes, bytes to bits; lanes picked.
#define ONCEOVER_WIDEN_BYTES(from) ((Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))
#define ONCEOVER_NARROW_TO_BYTES(to, value) \
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)(value)))
#define ONCEOVER_PICK_LANES(values, indices) ((Floats)_mm512_permutexvar_ps((__m512i)(indices), (__m512)(values)))
#define ONCEOVER_NONZERO_64(bytes) nonzero_512(_mm512_loadu_si512(bytes))

inline __attribute__((always_inline)) uint64_t nonzero_512(__m512i bytes) {
  return _mm512_test_epi8_mask(bytes, bytes);
}
