#include "measuring/statistics.h"

#include <algorithm>
#include <cmath>

namespace onceover {
namespace {

constexpr double kTail = 0.025;  // of each side of an interval
constexpr size_t kExact = 1000;  // runs up to which the binomial is summed

}  // namespace

double binomial_cdf(size_t k, size_t n, double p) {
  if (k >= n) return 1;
  const auto count = static_cast<double>(n), successes = static_cast<double>(k);
  if (n > kExact)
    return 0.5 * std::erfc(-((successes + 0.5 - count * p) / std::sqrt(count * p * (1 - p))) / std::sqrt(2));
  double sum = 0;
  for (size_t i = 0; i <= k; ++i) {
    const auto x = static_cast<double>(i);
    sum += std::exp(std::lgamma(count + 1) - std::lgamma(x + 1) - std::lgamma(count - x + 1) + x * std::log(p) +
                    (count - x) * std::log1p(-p));
  }
  return std::min(1.0, sum);
}

size_t runs_for(double part) { return static_cast<size_t>(std::ceil(1 / (1 - part) - 1e-9)); }

// The r-th smallest of n lies below the true percentile q with P(X ≥ r), X of Binomial(n, q) counting runs below it.
Percentile percentile(const std::vector<uint64_t>& sorted, double part) {
  const size_t n = sorted.size();
  const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(n) - 1e-9));
  Percentile found = {part, sorted[std::clamp<size_t>(rank, 1, n) - 1], sorted.front(), 0};
  if (part <= 0 || part >= 1) return {part, part <= 0 ? sorted.front() : sorted.back(), sorted.front(), sorted.back()};
  // lower: the largest r with P(X ≤ r − 1) ≤ tail; upper: the smallest r with P(X ≤ r − 1) ≥ 1 − tail.
  size_t low = 0, high = n;  // binary search over r in 0 … n of a function that rises with r
  while (low < high) {
    const size_t r = (low + high + 1) / 2;
    if (binomial_cdf(r - 1, n, part) <= kTail) {
      low = r;
    } else {
      high = r - 1;
    }
  }
  if (low > 0) found.lower_ns = sorted[low - 1];
  size_t first = 1, last = n + 1;
  while (first < last) {
    const size_t r = (first + last) / 2;
    const bool enough = r <= n && binomial_cdf(r - 1, n, part) >= 1 - kTail;
    if (enough) {
      last = r;
    } else {
      first = r + 1;
    }
  }
  // The cdf of all n runs is 1 whatever is above the largest: it says nothing.
  if (first < n + 1 && binomial_cdf(n - 1, n, part) >= 1 - kTail) found.upper_ns = sorted[first - 1];
  return found;
}

}  // namespace onceover
