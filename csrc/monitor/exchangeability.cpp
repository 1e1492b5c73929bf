#include "monitor/exchangeability.h"

#include <algorithm>
#include <cmath>

#include "monitor/normal_scores.h"

namespace onceover {
namespace {

constexpr double kLargest = 1e300;

// On normal scores of mean `shift` and deviation `spread` instead of 0 and 1.
struct Bet {
  double shift, spread;
};
constexpr Bet kAllBets[ExchangeabilityChart::kBets] = {{-1, 1}, {-0.5, 1}, {0.5, 1}, {1, 1}, {0, 0.6}, {0, 1.5}};

// The probability of (below, upto] of [0, 1] under a bet; NaN-free at both ends.
double share(const Bet& bet, double below, double upto) noexcept {
  const double low = below <= 0 ? 0 : normal_cdf((normal_quantile(below) - bet.shift) / bet.spread);
  const double high = upto >= 1 ? 1 : normal_cdf((normal_quantile(upto) - bet.shift) / bet.spread);
  return high - low;
}

}  // namespace

ExchangeabilityChart::ExchangeabilityChart(uint32_t cells) noexcept
    : cells_(cells), bins_(std::min<uint32_t>(cells, kBins)) {
  for (uint64_t cell = 0; cell < cells; ++cell) ++mass_[cell * bins_ / cells];
}

void ExchangeabilityChart::update(uint32_t cell, bool learn) noexcept {
  const size_t bin = static_cast<size_t>(uint64_t{cell} * bins_ / cells_);
  uint64_t total = 0, below = 0;
  for (size_t i = 0; i < bins_; ++i) {
    if (i < bin) below += mass_[i];
    total += mass_[i];
  }
  const auto whole = static_cast<double>(total);
  const double low = static_cast<double>(below) / whole, high = static_cast<double>(below + mass_[bin]) / whole;
  for (size_t i = 0; i < kBets; ++i) {
    values_[i] = std::min((values_[i] + 1) * share(kAllBets[i], low, high) / (high - low), kLargest);
  }
  if (learn) ++mass_[bin];
}

double ExchangeabilityChart::value() const noexcept {
  double sum = 0;
  for (const double value : values_) sum += value / kBets;
  return sum;
}

void ExchangeabilityChart::restart() noexcept { std::fill(values_, values_ + kBets, 0.0); }

bool ExchangeabilityChart::is_possible() const noexcept {
  if (bins_ != std::min<uint32_t>(cells_, kBins)) return false;
  for (size_t i = 0; i < bins_; ++i) {
    if (mass_[i] == 0 || mass_[i] > uint64_t{1} << 56) return false;
  }
  return std::all_of(values_, values_ + kBets, [](double value) { return value >= 0 && value <= kLargest; });
}

}  // namespace onceover
