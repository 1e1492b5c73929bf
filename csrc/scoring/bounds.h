// Every slack of the search in one place; each cites the line of EXACTNESS.md that derives it.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

namespace onceover {

inline constexpr double kUnit32 = 0x1p-24;  // unit roundoff of float32
inline constexpr double kUnit64 = 0x1p-53;  // and of float64

// (S1) squared_f64 against real arithmetic, as a factor on the distance; and as a share of |q|² + |b|².
inline constexpr double kExactDistance = 1 + 0x1p-40;
inline constexpr double kExactSquare = 0x1p-40;

// (S2) Largest |x| of a centered row or query between which no float32 operation of the search overflows, and what
// underflow loses is below kUnderflow, as a distance.
inline constexpr float kLargestSafe = 1e15f;
inline constexpr float kSmallestSafe = 1e-12f;
inline constexpr double kUnderflow = 1e-20;

// Codes on a finer step would overflow for the smallest query that is coded.
inline constexpr float kSmallestStep = 1e-21f;

// (S3) Of a query's centered float32 coordinates against the real ones, and of evaluating x − step · X, as a share of
// |x|.
inline constexpr double kCenterShare = 4 * kUnit32;
// (S4) Of a computed norm of errors: the square root of a float32 sum of `dims` squares, as a factor.
inline double error_norm(size_t dims) { return 1 + (static_cast<double>(dims) + 32) * kUnit32; }
// (S5) Of z as computed (float64, then one rounding) against the real projection and norm of the rest, as a share of
// |x|; kRank has at most kMostRank2 directions. And of taking off the mean of the tails, as a share of it.
inline constexpr size_t kMostRank2 = 4096;
inline constexpr double kProjectionShare = 16 * kUnit32;
inline constexpr double kTailMeanShare = 4 * kUnit32;

// (S6) Of the float32 evaluation of a block's bound.
inline constexpr double kBoundLower = 1 - 16 * kUnit32;
inline constexpr double kBoundUpper = 1 + 16 * kUnit32;
inline constexpr double kBoundUnits = 2;
inline constexpr double kReachUpper = 1 + 4 * kUnit32;
// Codes of more coordinates would not leave room for the screen's integers.
inline constexpr size_t kMostRank1 = 16384;

// (S7) Of the second bound's float32 sum, as a factor on the square, and of rounding inside it as a share of |x|.
inline double refined_lower(size_t rank2) { return 1 - (static_cast<double>(rank2) / 16 + 16) * kUnit32; }
inline constexpr double kRefinedShare = 4 * kUnit32;
// … and of a comparison with the reach in float32, of the square of which it is a factor and to which it is added.
inline constexpr float kComparedUpper = 1 + 32 * static_cast<float>(kUnit32);
inline constexpr float kComparedUnderflow = 0x1p-120f;

// (S8) squared_f32 against real arithmetic, as a factor: k·u / (1 − k·u) with k = ⌈D/16⌉ + 6, and some.
inline double measured_lower(size_t dims) { return 1 - (static_cast<double>(dims) / 16 + 10) * kUnit32; }
// Below this, underflow in squared_f32 is not covered by the factor: measure in float64.
inline constexpr double kSmallestMeasured = 1e-28;

// (S9) scan_f32 with centering: relative to |b|²/2 + |q||b|, and absolute.
inline double scan_error(size_t dims) { return (static_cast<double>(dims) + 20) * kUnit32 * 1.02; }
inline double scan_underflow(size_t dims) { return static_cast<double>(dims) * 0x1p-147; }

// (B1) Of a row's z and tail as the builder computes them in float64, as a share of |x|; and of its error norms.
inline double stored_share(size_t padded, size_t rank2) {
  const auto dims = static_cast<double>(padded), rank = static_cast<double>(rank2);
  return std::sqrt(2 * std::sqrt(rank) * (dims + 2) * kUnit64 + 2 * (dims + rank + 16) * kUnit64) + 2 * kUnit32;
}
inline constexpr double kStoredError = 1 + 0x1p-30;

// The smallest float not below a nonnegative double.
inline float round_up(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) >= value) return nearest;
  return std::nextafter(nearest, std::numeric_limits<float>::infinity());
}

}  // namespace onceover
