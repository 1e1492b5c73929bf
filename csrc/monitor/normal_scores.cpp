#include "monitor/normal_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace onceover {

double normal_cdf(double z) noexcept { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

double normal_quantile(double p) noexcept {
  if (p > 0.5) return -normal_quantile(1 - p);
  if (p <= 0) return -std::numeric_limits<double>::infinity();
  // A start within 4.5e-4 (Abramowitz and Stegun 26.2.23), then Halley's rule, which triples the digits.
  const double t = std::sqrt(-2 * std::log(p));
  double z = (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
  for (int i = 0; i < 2; ++i) {
    const double density = std::exp(-0.5 * z * z) / std::sqrt(6.283185307179586);
    const double step = (normal_cdf(z) - p) / density;
    z -= step / (1 + 0.5 * z * step);
  }
  return z;
}

SequentialRanks::Gaps SequentialRanks::gaps_of(float value) const noexcept {
  const float* end = baseline_ + kept_;
  return {static_cast<size_t>(std::lower_bound(baseline_, end, value) - baseline_),
          static_cast<size_t>(std::upper_bound(baseline_, end, value) - baseline_)};
}

double SequentialRanks::score(float value) const noexcept {
  const Gaps gaps = gaps_of(value);
  uint64_t below = gaps.first, beside = gaps.last - gaps.first;
  for (size_t i = 0; i < gaps.first; ++i) below += later_[i];
  for (size_t i = gaps.first; i <= gaps.last; ++i) beside += later_[i];
  const double total = static_cast<double>(learned()) + 1;
  return normal_quantile((static_cast<double>(below) + 0.5 * (static_cast<double>(beside) + 1)) / total);
}

void SequentialRanks::learn(float value) noexcept {
  if (kept_ < kBaseline) {
    float* at = std::upper_bound(baseline_, baseline_ + kept_, value);
    std::copy_backward(at, baseline_ + kept_, baseline_ + kept_ + 1);
    *at = value;
    ++kept_;
  } else if (counted_ < std::numeric_limits<uint32_t>::max()) {
    ++later_[gaps_of(value).first];
    ++counted_;
  }
}

bool SequentialRanks::is_possible() const noexcept {
  if (kept_ > kBaseline || (kept_ < kBaseline && counted_ > 0)) return false;
  uint64_t counted = 0;
  for (const uint32_t count : later_) counted += count;
  const auto is_finite = [](float value) { return std::isfinite(value); };
  return counted == counted_ && std::all_of(baseline_, baseline_ + kept_, is_finite) &&
         std::is_sorted(baseline_, baseline_ + kept_);
}

}  // namespace onceover
