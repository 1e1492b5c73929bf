// Part of portable.inl: anomaly maps and masks, for the metrics.

void keys_f32(const float* scores, size_t count, uint32_t shift, uint32_t* keys) {
  typedef uint32_t Unsigned __attribute__((vector_size(ONCEOVER_VECTOR_BYTES)));
  size_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    Ints bits = load_as<Ints>(scores + i);
    bits = bits == INT32_MIN ? Ints{} : bits;
    store_to(keys + i, (Unsigned)(bits ^ ((bits >> 31) | INT32_MIN)) >> shift);
  }
  for (; i < count; ++i) {
    int32_t bits;
    __builtin_memcpy(&bits, scores + i, sizeof bits);
    if (bits == INT32_MIN) bits = 0;
    keys[i] = static_cast<uint32_t>(bits ^ ((bits >> 31) | INT32_MIN)) >> shift;
  }
}

size_t count_nan_f32(const float* scores, size_t count) {
  constexpr int32_t kInfinity = 0x7f800000;
  constexpr size_t kAtOnce = size_t{1} << 30;  // so that a lane's count stays in int32
  size_t found = 0;
  while (count > 0) {
    const size_t part = count < kAtOnce ? count : kAtOnce;
    Ints lanes = {};
    size_t i = 0;
    for (; i + kWidth <= part; i += kWidth) lanes -= (load_as<Ints>(scores + i) & INT32_MAX) > kInfinity;
    for (size_t lane = 0; lane < kWidth; ++lane) found += static_cast<size_t>(lanes[lane]);
    for (; i < part; ++i) {
      int32_t bits;
      __builtin_memcpy(&bits, scores + i, sizeof bits);
      found += (bits & INT32_MAX) > kInfinity ? 1 : 0;
    }
    scores += part;
    count -= part;
  }
  return found;
}

// Bit i tells whether bytes[i] is not 0, for 64 bytes.
#ifndef ONCEOVER_NONZERO_64
ONCEOVER_INLINE uint64_t nonzero_64(const uint8_t* bytes) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7fu;
  uint64_t words[8], any = 0, found = 0;
  __builtin_memcpy(words, bytes, sizeof words);
  for (const uint64_t word : words) any |= word;
  if (any == 0) return 0;
  for (size_t i = 0; i < 8; ++i) {
    const uint64_t high = (((words[i] & kLow) + kLow) | words[i]) & ~kLow;  // top bit of each byte that is not 0
    found |= ((high >> 7) * 0x0102040810204080u >> 56) << (8 * i);          // gathered, the lowest byte first
  }
  return found;
}
#define ONCEOVER_NONZERO_64(bytes) nonzero_64(bytes)
#endif

void nonzero_bits(const uint8_t* bytes, size_t count, uint64_t* words) {
  size_t i = 0;
  for (; i + 64 <= count; i += 64) *words++ = ONCEOVER_NONZERO_64(bytes + i);
  if (i == count) return;
  uint8_t tail[64] = {};
  __builtin_memcpy(tail, bytes + i, count - i);
  *words = ONCEOVER_NONZERO_64(tail);
}

// Bit i tells whether values[i] > threshold, for 64 values.
#ifndef ONCEOVER_ABOVE_64
ONCEOVER_INLINE uint64_t above_64(const float* values, float threshold) {
  typedef int32_t FourInts __attribute__((vector_size(16)));
  uint64_t found = 0;
  for (size_t half = 0; half < 2; ++half) {
    FourInts bits = {}, places = {1, 2, 4, 8};
    for (size_t v = 0; v < 8; ++v, places <<= 4) {
      bits |= (FourInts)(load_as<Four>(values + 32 * half + 4 * v) > threshold) & places;
    }
    const auto all = static_cast<uint32_t>(bits[0] | bits[1] | bits[2] | bits[3]);
    found |= static_cast<uint64_t>(all) << (32 * half);
  }
  return found;
}
#define ONCEOVER_ABOVE_64(values, threshold) above_64(values, threshold)
#endif

void above_bits_f32(const float* values, size_t count, float threshold, uint64_t* words) {
  size_t i = 0;
  for (; i + 64 <= count; i += 64) *words++ = ONCEOVER_ABOVE_64(values + i, threshold);
  if (i == count) return;
  float tail[64];
  for (float& value : tail) value = threshold;
  __builtin_memcpy(tail, values + i, (count - i) * sizeof(float));
  *words = ONCEOVER_ABOVE_64(tail, threshold);
}

uint64_t sum_bytes(const uint8_t* bytes, size_t count) {
  typedef uint16_t Pairs __attribute__((vector_size(ONCEOVER_VECTOR_BYTES)));
  constexpr size_t kAtOnce = 128;  // vectors: 128 · 2 · 255 < 2^16
  uint64_t total = 0;
  size_t i = 0;
  while (i + ONCEOVER_VECTOR_BYTES <= count) {
    Pairs sums = {};
    for (size_t v = 0; v < kAtOnce && i + ONCEOVER_VECTOR_BYTES <= count; ++v, i += ONCEOVER_VECTOR_BYTES) {
      const Pairs pairs = load_as<Pairs>(bytes + i);
      sums += (pairs & 0xff) + (pairs >> 8);
    }
    for (size_t lane = 0; lane < ONCEOVER_VECTOR_BYTES / 2; ++lane) total += sums[lane];
  }
  for (; i < count; ++i) total += bytes[i];
  return total;
}
