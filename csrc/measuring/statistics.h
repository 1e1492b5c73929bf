// Latencies as numbers that can be compared: nearest-rank percentiles with distribution-free intervals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onceover {

struct Percentile {
  double part;                  // 0.5 is the median
  uint64_t ns;                  // the smallest time that at least this part of the runs did not exceed
  uint64_t lower_ns, upper_ns;  // of 95 % confidence, for independent runs; upper_ns 0: more runs are needed to tell
};

// Of `sorted`, ascending and not empty. The interval is that of order statistics (binomial, normal approximation with
// continuity correction beyond 1,000 runs): no distribution is assumed.
Percentile percentile(const std::vector<uint64_t>& sorted, double part);

// Runs below which a percentile is the largest run and nothing else: 1 / (1 − part).
size_t runs_for(double part);

// P(X ≤ k) for X of Binomial(n, p).
double binomial_cdf(size_t k, size_t n, double p);

}  // namespace onceover
