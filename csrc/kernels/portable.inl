// Kernel bodies that are written once and compiled for each instruction set: an ISA file includes this inside its
// target pragma and its anonymous namespace, after defining ONCEOVER_VECTOR_BYTES (its register width). GCC and Clang
// vector types; every operation is elementwise and rounded on its own, so that each instruction set returns the same
// bits. Not a header: no include guard, no includes.
#ifndef ONCEOVER_VECTOR_BYTES
#error "define ONCEOVER_VECTOR_BYTES before including portable.inl"
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only
#endif
#define ONCEOVER_INLINE inline __attribute__((always_inline))

constexpr size_t kWidth = ONCEOVER_VECTOR_BYTES / 4;  // 32-bit lanes of a register
constexpr size_t kParts = kQueryLanes / kWidth;       // registers of 16 lanes
constexpr size_t kWide = kWidth / 2;                  // 64-bit lanes of a register
constexpr size_t kWideParts = kQueryLanes / kWide;

typedef float Floats __attribute__((vector_size(ONCEOVER_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(ONCEOVER_VECTOR_BYTES)));
typedef double Doubles __attribute__((vector_size(ONCEOVER_VECTOR_BYTES)));
typedef float HalfFloats __attribute__((vector_size(ONCEOVER_VECTOR_BYTES / 2)));
typedef int32_t HalfInts __attribute__((vector_size(ONCEOVER_VECTOR_BYTES / 2)));
typedef float Four __attribute__((vector_size(16)));
typedef double Two __attribute__((vector_size(16)));

template <typename V, typename T>
ONCEOVER_INLINE V load_as(const T* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <typename V, typename T>
ONCEOVER_INLINE void store_to(T* to, const V& value) {
  __builtin_memcpy(to, &value, sizeof value);
}
// Bytes ↔ 32-bit lanes: compilers take them apart one by one, so an ISA file may bring its own. So with
// ONCEOVER_NONZERO_64, ONCEOVER_ABOVE_64 (portable_maps.inl), ONCEOVER_ANY(value), whether any bit is set, and
// ONCEOVER_PICK_LANES(values, indices), lane i of which is values[indices[i]], 0 ≤ indices[i] < kWidth
// (portable_images.inl).
#ifndef ONCEOVER_WIDEN_BYTES
ONCEOVER_INLINE Ints widen_bytes(const int8_t* from) {
  Ints value = {};
  for (size_t lane = 0; lane < kWidth; ++lane) value[lane] = from[lane];
  return value;
}
#define ONCEOVER_WIDEN_BYTES(from) widen_bytes(from)
#endif
#ifndef ONCEOVER_NARROW_TO_BYTES
ONCEOVER_INLINE void narrow_to_bytes(int8_t* to, const Ints& value) {
  for (size_t lane = 0; lane < kWidth; ++lane) to[lane] = static_cast<int8_t>(value[lane]);
}
#define ONCEOVER_NARROW_TO_BYTES(to, value) narrow_to_bytes(to, value)
#endif

#ifndef ONCEOVER_ANY
ONCEOVER_INLINE bool any_bit(const Ints& value) {
  uint64_t any = 0, words[sizeof value / 8];
  __builtin_memcpy(words, &value, sizeof value);
  for (size_t word = 0; word < sizeof value / 8; ++word) any |= words[word];
  return any != 0;
}
#define ONCEOVER_ANY(value) any_bit(value)
#endif

// Four rows of four → four columns.
ONCEOVER_INLINE void transpose_4x4(Four (&v)[4]) {
  const Four low01 = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5),
             high01 = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const Four low23 = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5),
             high23 = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  v[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  v[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  v[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  v[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

// A register's lanes, those four apart added up.
ONCEOVER_INLINE Four fold(const Floats& value) {
#if ONCEOVER_VECTOR_BYTES == 64
  const HalfFloats eight = __builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7) +
                           __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#elif ONCEOVER_VECTOR_BYTES == 32
  return __builtin_shufflevector(value, value, 0, 1, 2, 3) + __builtin_shufflevector(value, value, 4, 5, 6, 7);
#else
  return value;
#endif
}

ONCEOVER_INLINE Floats splat(float value) { return Floats{} + value; }
ONCEOVER_INLINE Ints splat(int32_t value) { return Ints{} + value; }
ONCEOVER_INLINE Ints bits_of(const Floats& value) { return load_as<Ints>(&value); }
ONCEOVER_INLINE Floats float_bits(const Ints& value) { return load_as<Floats>(&value); }

constexpr float kRounder = 12582912.0f;  // 1.5 · 2^23: adding it rounds |v| < 2^22 to the nearest integer, ties to even
constexpr int32_t kRounderBits = 0x4B400000;
ONCEOVER_INLINE Ints nearest_integer(const Floats& value) { return bits_of(value + kRounder) - kRounderBits; }

#include "kernels/portable_images.inl"
#include "kernels/portable_maps.inl"
#include "kernels/portable_products.inl"
#include "kernels/portable_queries.inl"
#include "kernels/portable_rows.inl"

#define ONCEOVER_PORTABLE_KERNELS                                                                                    \
  center_f32, along_axes_f32, quantize_f32, pack_tiles, transpose_lanes, combine_planes, encode_lanes, best_blocks,  \
      find_hits, refine_rows, squared_f32, squared_f64, pack_panel_f32, lower_to_center_f32, multiply_f64, keys_f32, \
      count_nan_f32, nonzero_bits, above_bits_f32, sum_bytes, blend_rows_u8, blend_rows_u16, add_row_u8,             \
      filter_pixels_f32, filter_samples_f32, look_up_levels_f32, nv12_row, blend_lines_f32, filter_lanes_f32,        \
      mix_columns_f32, mix_rows_f32, largest_f32, multiply_f32
