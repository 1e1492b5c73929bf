// Do the scores of accepted parts still come from where the calibration scores came from? A test by betting, whose
// average run length is a theorem for any number of calibration parts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

// The calibration scores up to the threshold and the accepted parts so far divide the line into cells; the next
// accepted part falls into each with the same probability if it is exchangeable with them (the p-value of conformal
// prediction). Cells are pooled into at most kBins bins, so that counters are all that is kept: a Pólya urn.
//
// Bets on what a shift or a change of spread would do win against that probability only when it is wrong: with odds
// L(t) of mean 1, the Shiryaev-Roberts statistic R(t) = (R(t−1) + 1) · L(t) has mean t, and stopping at R ≥ c takes at
// least c parts on average (Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman 2021, "Retrain or not retrain:
// conformal test martingales for change-point detection", arXiv:2102.10439; Roberts 1966). So is the mean of several.
class ExchangeabilityChart {
 public:
  static constexpr size_t kBins = 10, kBets = 6;

  ExchangeabilityChart() = default;
  // cells: of accepted parts among the calibration scores, 0 or 1 for none: then there is no chart.
  explicit ExchangeabilityChart(uint32_t cells) noexcept;

  bool exists() const noexcept { return bins_ > 1; }
  // An accepted part with `cell` calibration scores below its own.
  void update(uint32_t cell, bool learn) noexcept;
  double value() const noexcept;  // R, at most 1e300
  void restart() noexcept;        // R = 0; what was learned stays
  bool is_possible() const noexcept;
  bool is_like(const ExchangeabilityChart& other) const noexcept { return cells_ == other.cells_; }  // made alike

  template <typename Archive>
  void transfer(Archive& archive) {
    archive.value(cells_);
    archive.value(bins_);
    for (uint64_t& mass : mass_) archive.value(mass);
    for (double& value : values_) archive.value(value);
  }

 private:
  uint32_t cells_ = 0, bins_ = 0;
  uint64_t mass_[kBins] = {};  // cells of each bin, and parts that fell into it
  double values_[kBets] = {};
};

}  // namespace onceover
