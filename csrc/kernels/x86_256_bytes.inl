// What portable.inl takes from 256-bit x86: bytes to and from 32-bit lanes, bytes to bits; lanes picked
// and compared.
#define ONCEOVER_WIDEN_BYTES(from) ((Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))))
#define ONCEOVER_NARROW_TO_BYTES(to, value) narrow_256((to), (__m256i)(value))

inline __attribute__((always_inline)) void narrow_256(int8_t* to, __m256i value) {
  const __m256i first_bytes = _mm256_set1_epi32(0x0c080400);  // of the four lanes of each half
  const __m256i packed = _mm256_shuffle_epi8(value, first_bytes);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to),
                   _mm_unpacklo_epi32(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1)));
}

#define ONCEOVER_PICK_LANES(values, indices) ((Floats)_mm256_permutevar8x32_ps((__m256)(values), (__m256i)(indices)))
#define ONCEOVER_ANY(value) (_mm256_testz_si256((__m256i)(value), (__m256i)(value)) == 0)
#define ONCEOVER_NONZERO_64(bytes) (nonzero_256(bytes) | static_cast<uint64_t>(nonzero_256((bytes) + 32)) << 32)

inline __attribute__((always_inline)) uint32_t nonzero_256(const uint8_t* bytes) {
  const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  return ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(value, _mm256_setzero_si256())));
}

#define ONCEOVER_ABOVE_64(values, threshold) \
  (above_256(values, threshold) | static_cast<uint64_t>(above_256((values) + 32, threshold)) << 32)

inline __attribute__((always_inline)) uint32_t above_256(const float* values, float threshold) {
  uint32_t found = 0;
  for (int part = 0; part < 4; ++part) {
    const __m256 above = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * part), _mm256_set1_ps(threshold), _CMP_GT_OQ);
    found |= static_cast<uint32_t>(_mm256_movemask_ps(above)) << (8 * part);
  }
  return found;
}
