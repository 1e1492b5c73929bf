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
      position_weights_(read_position_weights(package, config, number)),
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

Product::Change::Change(Product& product, const Package& package, const Config& config, const BankChanges& changes,
                        size_t max_added_rows, const KernelTable& table, Memory& memory)
    : product_(product), changes_(changes) {
  const Calibration& calibration = product.calibration_;
  if (product.corrected_ == nullptr || product.corrected_->max_added_rows() < max_added_rows) {
    made_ = std::make_unique<CorrectedBank>(product.index_, max_added_rows, memory);
    scores_ = Buffer<float>(memory, size_t{2} * calibration.n, "corrected calibration");
  } else {
    kept_ = product.corrected_->keep();
  }
  CorrectedBank& bank = made_ != nullptr ? *made_ : *product.corrected_;
  bank.apply(changes, table);
  try {
    const Scoring scoring{product.number_, product.roi_, product.position_weights_};
    found_ = recalibrate(package, config, scoring, calibration, bank, changes, table);
  } catch (...) {
    if (made_ == nullptr) bank.restore(std::move(kept_));
    throw;
  }
}

Product::Change::~Change() {
  if (!is_committed_ && made_ == nullptr) product_.corrected_->restore(std::move(kept_));
}

void Product::Change::commit() noexcept {
  Product& to = product_;
  const float old_threshold = to.calibration().threshold, old_map_threshold = to.calibration().map_threshold;
  if (made_ != nullptr) {
    to.corrected_ = std::move(made_);
    to.corrected_scores_ = std::move(scores_);
  }
  to.changes_ = std::move(changes_);
  std::copy(found_.scores.begin(), found_.scores.end(), to.corrected_scores_.begin());
  std::copy(found_.map_maxima.begin(), found_.map_maxima.end(), to.corrected_scores_.begin() + found_.scores.size());
  Calibration& corrected = to.corrected_calibration_;
  corrected = to.calibration_;
  corrected.calibrated = found_.calibrated;
  corrected.threshold = found_.threshold;
  corrected.map_threshold = found_.map_threshold;
  corrected.n = static_cast<uint32_t>(found_.scores.size());
  corrected.scores = to.corrected_scores_.data();
  corrected.map_maxima = to.corrected_scores_.data() + found_.scores.size();
  if (to.threshold_ == old_threshold) to.threshold_ = found_.threshold;
  if (to.map_threshold_ == old_map_threshold) to.map_threshold_ = found_.map_threshold;
  to.applied_ = {to.changes_.numbers.size(), to.changes_.removed.size(), found_.state, found_.bounded_parts};
  is_committed_ = true;
}

}  // namespace onceover
