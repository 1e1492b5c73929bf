#include "monitor/limits.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace onceover {
namespace {

// For average run lengths of 10^2.5, 10^2.75, …, 10^7, by benchmarks/monitor_limits.py: EWMA in its settled standard
// deviations, CUSUM in those of a part.
constexpr double kFirstDecade = 2.5, kStep = 0.25;
constexpr size_t kCount = 19;
constexpr double kEwmaLimits[kCount] = {2.4221, 2.6625, 2.8838, 3.0885, 3.2792, 3.4582, 3.6273, 3.7878, 3.9411, 4.0880,
                                        4.2292, 4.3655, 4.4974, 4.6251, 4.7493, 4.8700, 4.9877, 5.1025, 5.2146};
constexpr double kCusumLimits[kCount] = {4.6195,  5.1868,  5.7574,  6.3299,  6.9036,  7.4781,  8.0530,
                                         8.6283,  9.2037,  9.7792,  10.3547, 10.9303, 11.5059, 12.0816,
                                         12.6572, 13.2329, 13.8085, 14.3841, 14.9598};

// Both are nearly straight in the logarithm.
double interpolated(const double (&limits)[kCount], double run_length) noexcept {
  const double at = std::clamp((std::log10(run_length) - kFirstDecade) / kStep, 0.0, double{kCount - 1});
  const size_t below = std::min(static_cast<size_t>(at), kCount - 2);
  return limits[below] + (at - static_cast<double>(below)) * (limits[below + 1] - limits[below]);
}

}  // namespace

double ewma_limit(double run_length) noexcept {
  return interpolated(kEwmaLimits, run_length) * std::sqrt(kEwmaWeight / (2 - kEwmaWeight));
}

double cusum_limit(double run_length) noexcept { return interpolated(kCusumLimits, run_length); }

}  // namespace onceover
