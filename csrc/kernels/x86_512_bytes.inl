// What portable.inl takes from 512-bit x86: bytes to and from 32-bit lanes, bytes to bits; lanes picked
// and compared.
#define ONCEOVER_WIDEN_BYTES(from) ((Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))
#define ONCEOVER_NARROW_TO_BYTES(to, value) \
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)(value)))
#define ONCEOVER_PICK_LANES(values, indices) ((Floats)_mm512_permutexvar_ps((__m512i)(indices), (__m512)(values)))
#define ONCEOVER_ANY(value) (_mm512_test_epi32_mask((__m512i)(value), (__m512i)(value)) != 0)
#define ONCEOVER_NONZERO_64(bytes) nonzero_512(_mm512_loadu_si512(bytes))

inline __attribute__((always_inline)) uint64_t nonzero_512(__m512i bytes) {
  return _mm512_test_epi8_mask(bytes, bytes);
}

#define ONCEOVER_ABOVE_64(values, threshold) above_512(values, threshold)

inline __attribute__((always_inline)) uint64_t above_512(const float* values, float threshold) {
  uint64_t found = 0;
  for (int part = 0; part < 4; ++part) {
    const __mmask16 above =
        _mm512_cmp_ps_mask(_mm512_loadu_ps(values + 16 * part), _mm512_set1_ps(threshold), _CMP_GT_OQ);
    found |= static_cast<uint64_t>(above) << (16 * part);
  }
  return found;
}
