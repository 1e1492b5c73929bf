#include "session/product.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

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

// (cell_count): 1 inside, 0 outside.
Buffer<uint8_t> cells_inside(const Config& config, const Roi& roi, Memory& memory) {
  Buffer<uint8_t> cells(memory, config.cell_count(), "cells of the region of interest");
  roi.mark({cells.data(), config.tiles().height(), config.tiles().width()});
  return cells;
}

// The features whose cells are inside.
Buffer<uint32_t> features_of(const Config& config, const Buffer<uint8_t>& inside, Memory& memory) {
  const TileGrid tiles = config.tiles();
  const auto each = [&](auto&& use) {
    for (size_t tile = 0; tile < tiles.tiles(); ++tile) {
      for (size_t patch = 0; patch < tiles.tile_patches(); ++patch) {
        if (inside[tiles.cell(tile, patch)] != 0) use(tile * tiles.tile_patches() + patch);
      }
    }
  };
  size_t count = 0;
  each([&](size_t) { ++count; });
  Buffer<uint32_t> found(memory, count, "patches of the region of interest");
  count = 0;
  each([&](size_t feature) { found[count++] = static_cast<uint32_t>(feature); });
  return found;
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
    case Decision::kWrongPart:
      return "wrong_part";
  }
  return "unknown";
}

Decision decision_of(float score, float threshold) noexcept {
  return threshold == std::numeric_limits<float>::infinity() ? Decision::kUncalibrated
         : score > threshold                                 ? Decision::kAnomalous
                                                             : Decision::kNormal;
}

Buffer<uint32_t> features_inside(const Config& config, const Roi& roi, Memory& memory) {
  return features_of(config, cells_inside(config, roi, memory), memory);
}

Product::Product(const Package& package, const Config& config, const KernelTable& table, Memory& memory,
                 uint32_t number, std::string name)
    : name_(std::move(name)),
      number_(number),
      adaptation_(read_adaptation(package, config, number, memory)),
      index_(index_of(package, memory_bank_of(package, config, number), table, memory, own_index_, number)),
      calibration_(read_calibration(package, number)),
      roi_(read_roi(package, number)),
      threshold_(calibration_.threshold),
      map_threshold_(calibration_.map_threshold) {
  read_gate(package, config, number, gate_);
  if (roi_.whole()) return;
  inside_ = cells_inside(config, roi_, memory);
  const Buffer<uint8_t>& inside = inside_;
  continued_from_ = nearest_inside({inside.data(), config.tiles().height(), config.tiles().width()}, memory);
  searched_ = features_of(config, inside_, memory);
}

double Product::gate_ratio(MatrixView<const float> features, float* pooled) const noexcept {
  std::fill_n(pooled, features.columns, 0.0f);
  const size_t count = searched_.size() > 0 ? searched_.size() : features.rows;
  for (size_t i = 0; i < count; ++i) {
    const float* row = features.row(searched_.size() > 0 ? searched_[i] : i);
    for (size_t d = 0; d < features.columns; ++d) pooled[d] += row[d];
  }
  for (size_t d = 0; d < features.columns; ++d) pooled[d] /= static_cast<float>(count);
  return gate_.distance(pooled) / double{gate_.threshold};
}

size_t Product::mask(float* scores, uint32_t* rows, float* continued) const noexcept {
  for (size_t cell = 0; cell < continued_from_.size(); ++cell) {
    continued[cell] = scores[continued_from_[cell]];
    if (continued_from_[cell] == cell) continue;
    scores[cell] = 0;  // no other cell takes it: those that are read are inside
    rows[cell] = 0;
  }
  return continued_from_.size() == 0 ? 0 : continued_from_[0];
}

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
  BankChanges kept = changes;  // what can fail comes first
  CorrectedBank& bank = made != nullptr ? *made : *corrected_;
  bank.apply(changes, table);
  Recalibrated found;
  try {
    found = recalibrate(package, config, roi_, calibration_, bank, changes, table);
  } catch (...) {
    if (made == nullptr) {
      const bool was_calibrated = std::exchange(corrected_calibration_.calibrated, false);  // if that fails, too
      bank.apply(changes_, table);
      corrected_calibration_.calibrated = was_calibrated;
    }
    throw;
  }
  changes_ = std::move(kept);
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
