// Limits of EWMA and CUSUM charts of independent standard normal values, from the average run length that is wanted.
#pragma once

namespace onceover {

inline constexpr double kEwmaWeight = 0.05;     // what one part counts
inline constexpr double kCusumAllowance = 0.5;  // half the shift, in standard deviations, that is found fastest
inline constexpr double kMinRunLength = 3.2e2;  // of one chart: what the tables hold
inline constexpr double kMaxRunLength = 1e7;

// In units of the EWMA itself, for |EWMA| > limit.
double ewma_limit(double run_length) noexcept;
// Of a two-sided CUSUM.
double cusum_limit(double run_length) noexcept;

}  // namespace onceover
