// Scores as unsigned integers in the same order, and back (kernels: keys_f32). float16, uint8 and uint16 scores are
// exactly float32 ones.
#pragma once

#include <cstdint>
#include <cstring>

namespace onceover {

inline uint32_t key_of_score(float score) {
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  if (bits == 0x80000000u) bits = 0;  // −0 is 0
  return bits ^ ((bits >> 31 != 0 ? UINT32_MAX : 0) | 0x80000000u);
}

inline float score_of_key(uint32_t key) {
  const uint32_t bits = key ^ (key >> 31 != 0 ? 0x80000000u : UINT32_MAX);
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

inline constexpr uint32_t kKeyOfInfinity = 0xff800000u;

inline bool is_nan_f16(uint16_t half) { return (half & 0x7fff) > 0x7c00; }

inline float score_of_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, magnitude = half & 0x7fff;
  uint32_t bits = (magnitude << 13) + 0x38000000u;  // exponent bias 15 → 127
  if (magnitude >= 0x7c00) bits += 0x38000000u;     // infinity and NaN
  if (magnitude < 0x0400) {                         // subnormal: magnitude · 2^-24, exact
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    std::memcpy(&bits, &value, sizeof bits);
  }
  bits |= sign;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

}  // namespace onceover
