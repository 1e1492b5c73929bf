#include "session/product.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "session/bank_members.h"

namespace onceover {
namespace {

float finite_threshold(float threshold, const char* name) {
  if (!std::isfinite(threshold)) {
    fail(Status::kUsage, "the %s is %g, expected a finite number", name, static_cast<double>(threshold));
  }
  return threshold;
}

}  // namespace

const char* name_of(Decision decision) noexcept {
  switch (decision) {
    case Decision::kUncalibrated:
      return "uncalibrated";
    case Decision::kNormal:
      return "normal";
    case Decision::kAnomalous:
      return "anomalous";
  }
  return "unknown";
}

Decision decision_of(float score, float threshold) noexcept {
  return threshold == std::numeric_limits<float>::infinity() ? Decision::kUncalibrated
         : score > threshold                                 ? Decision::kAnomalous
                                                             : Decision::kNormal;
}

Product::Product(const Package& package, const Config& config, const KernelTable& table, Memory& memory)
    : index_(index_of(package, memory_bank_of(package, config), table, memory, own_index_)),
      calibration_(read_calibration(package)),
      threshold_(calibration_.threshold),
      map_threshold_(calibration_.map_threshold) {}

void Product::set_threshold(float threshold) { threshold_ = finite_threshold(threshold, "threshold"); }

void Product::set_map_threshold(float map_threshold) {
  map_threshold_ = finite_threshold(map_threshold, "map threshold");
}

void Product::apply(const Package& package, const Config& config, const BankChanges& changes, size_t max_added_rows,
                    const KernelTable& table, Memory& memory) {
  std::unique_ptr<CorrectedBank> made;
  Buffer<float> scores;
  if (corrected_ == nullptr || corrected_->max_added_rows() < max_added_rows) {
    made = std::make_unique<CorrectedBank>(index_, max_added_rows, memory);
    scores = Buffer<float>(memory, size_t{2} * calibration_.n, "corrected calibration");
  }
  CorrectedBank& bank = made != nullptr ? *made : *corrected_;
  bank.apply(changes, table);
  Recalibrated found;
  try {
    found = recalibrate(package, config, calibration_, bank, changes, table);
  } catch (...) {
    if (made == nullptr) bank.apply(changes_, table);
    throw;
  }
  changes_ = changes;
  const float old_threshold = calibration().threshold, old_map_threshold = calibration().map_threshold;
  if (made != nullptr) {
    corrected_ = std::move(made);
    corrected_scores_ = std::move(scores);
  }
  std::copy(found.scores.begin(), found.scores.end(), corrected_scores_.begin());
  std::copy(found.map_maxima.begin(), found.map_maxima.end(), corrected_scores_.begin() + found.scores.size());
  corrected_calibration_ = calibration_;
  corrected_calibration_.calibrated = found.calibrated;
  corrected_calibration_.threshold = found.threshold;
  corrected_calibration_.map_threshold = found.map_threshold;
  corrected_calibration_.n = static_cast<uint32_t>(found.scores.size());
  corrected_calibration_.scores = corrected_scores_.data();
  corrected_calibration_.map_maxima = corrected_scores_.data() + found.scores.size();
  if (threshold_ == old_threshold) threshold_ = found.threshold;
  if (map_threshold_ == old_map_threshold) map_threshold_ = found.map_threshold;
  applied_ = {changes.numbers.size(), changes.removed.size(), found.state, found.bounded_parts};
}

}  // namespace onceover
