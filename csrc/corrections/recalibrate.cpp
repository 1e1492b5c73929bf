#include "corrections/recalibrate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/finite.h"
#include "image/anomaly_map.h"
#include "package/fields.h"
#include "scoring/search.h"

namespace onceover {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
std::string member_of(uint32_t product) { return member_name("calibration_patches", product); }

float rounded_up(float value) { return std::nextafter(value, kInfinity); }

// The least rank whose realised rate is at most alpha with this probability: P(Binomial(n, alpha) ≥ n + 1 − rank) ≥
// confidence. As training/calibrate.py, threshold_rank.
size_t confident_rank(size_t count, double alpha, double confidence) {
  const double n = static_cast<double>(count), odds = std::log(alpha) - std::log1p(-alpha);
  double log_term = n * std::log1p(-alpha), sum = 0;
  size_t above = 0;  // the most parts of n that may lie above, surely enough
  for (; above < count; ++above) {
    sum += std::exp(log_term);
    if (sum > 1 - confidence) break;
    log_term += std::log((n - static_cast<double>(above)) / static_cast<double>(above + 1)) + odds;
  }
  return std::min(count, count + 1 - above);
}

// Which of the ascending values the threshold is, from 1: ⌈(n + 1)(1 − alpha)⌉, or, where another rule chose another
// one of the values, the last of those that equal it. It may be none of them: in a compacted package whose threshold
// was kept when scores fell.
size_t rank_of(float threshold, const float* values, size_t count, double alpha, double confidence) {
  const size_t below = static_cast<size_t>(std::lower_bound(values, values + count, threshold) - values);
  const size_t last = static_cast<size_t>(std::upper_bound(values, values + count, threshold) - values);
  // 1e-9: alpha is a decimal fraction that binary digits miss, as in 20 · (1 − 0.05).
  const double share = static_cast<double>(count + 1) * (1 - alpha);
  const double rank = std::ceil(share - 1e-9 * static_cast<double>(count + 1));
  const auto lawful = static_cast<size_t>(std::clamp(rank, 1.0, static_cast<double>(count)));
  if (below == last) return confidence > 0 ? std::max(lawful, confident_rank(count, alpha, confidence)) : lawful;
  return below < lawful && lawful <= last ? lawful : last;
}

// One held-out image scored anew.
struct Rescored {
  float score = 0, map_maximum = 0;
  bool exact = true;
};

class Rescorer {
 public:
  Rescorer(const Config& config, const Scoring& scoring, const CalibrationPatches& patches, const CorrectedBank& bank,
           const BankChanges& changes, const KernelTable& table)
      : config_(config),
        roi_(scoring.roi),
        weights_(scoring.position_weights),
        patches_(patches),
        bank_(bank),
        changes_(changes),
        table_(table),
        scratch_(memory_, search_scratch_bytes(bank.index(), 1), "search scratch"),
        map_(config.tiles().height(), config.tiles().width(), config.map_height(), config.map_width(),
             config.blur_sigma, memory_, table),
        views_(config.cell_count()) {
    const TileGrid tiles = config.tiles();
    for (size_t tile = 0; tile < tiles.tiles(); ++tile) {
      for (size_t patch = 0; patch < tiles.tile_patches(); ++patch) ++views_[tiles.cell(tile, patch)];
    }
    if (roi_.whole()) return;
    std::vector<uint8_t> inside(config.cell_count());
    const MatrixView<uint8_t> cells(inside.data(), tiles.height(), tiles.width());
    roi_.mark(cells);
    continued_from_ = nearest_inside({inside.data(), tiles.height(), tiles.width()}, memory_);
  }

  Rescored run(size_t image) {
    const size_t count = config_.cell_count(), tracked = patches_.tracked;
    const float* old = patches_.distances + image * count;
    grid_.assign(old, old + count);
    is_exact_.assign(count, changes_.numbers.empty() && !patches_.bounds ? 1 : 0);  // a row that joined may be nearer
    for (size_t p = 0; !changes_.removed.empty() && p < count; ++p) {
      const uint32_t row = patches_.nearest[image * count + p];
      const auto found = std::lower_bound(changes_.removed.begin(), changes_.removed.end(), row);
      if (found == changes_.removed.end() || *found != row) continue;
      // Triangle inequality: from the patch over the row that is gone to the row that is left.
      const float on = bank_.removed_distances()[static_cast<size_t>(found - changes_.removed.begin())];
      grid_[p] = rounded_up(rounded_up(grid_[p]) + on);
      is_exact_[p] = 0;
    }
    distances_.resize(tracked);
    rows_.resize(tracked);
    SearchStats stats;
    const float* embeddings = patches_.embeddings + image * tracked * config_.embedding_dim;
    search(bank_.index(), {embeddings, tracked, config_.embedding_dim}, 1, distances_.data(), rows_.data(), table_,
           scratch_.data(), stats);
    for (size_t t = 0; t < tracked; ++t) {
      const uint32_t patch = patches_.patches[image * tracked + t];
      grid_[patch] = distances_[t];
      // What another tile sees may be nearer now where rows joined, and no nearer where rows are only gone.
      if (views_[patch] == 1) is_exact_[patch] = 1;
    }
    // In float32, as a session weighs: what was no lower than a distance is no lower than its score.
    for (size_t p = 0; weights_ != nullptr && p < count; ++p) grid_[p] *= weights_[p];
    const float* drawn = masked();
    const size_t worst = static_cast<size_t>(std::max_element(grid_.begin(), grid_.end()) - grid_.begin());
    Rescored result;
    result.score = grid_[worst];
    // A patch of unknown distance that is as high as the worst one does not make the score less exact.
    for (size_t p = 0; p < count && !is_exact_[worst]; ++p) {
      if (is_exact_[p] && grid_[p] == grid_[worst]) is_exact_[worst] = 1;
    }
    result.exact = is_exact_[worst] != 0;
    const MatrixView<const float> map = map_.draw(drawn);
    result.map_maximum = roi_.whole() ? map_.maximum() : roi_.largest_inside(map);
    return result;
  }

 private:
  // As Product::mask: 0 outside the region, and what the map is drawn from.
  const float* masked() {
    if (roi_.whole()) return grid_.data();
    continued_.resize(grid_.size());
    for (size_t cell = 0; cell < grid_.size(); ++cell) continued_[cell] = grid_[continued_from_[cell]];
    for (size_t cell = 0; cell < grid_.size(); ++cell) {
      if (continued_from_[cell] == cell) continue;
      grid_[cell] = 0;
      is_exact_[cell] = 1;
    }
    return continued_.data();
  }

  const Config& config_;
  const Roi& roi_;
  const float* weights_;
  const CalibrationPatches& patches_;
  const CorrectedBank& bank_;
  const BankChanges& changes_;
  const KernelTable& table_;
  Memory memory_;
  Buffer<uint8_t> scratch_;
  AnomalyMap map_;
  std::vector<uint32_t> views_;  // (P) how many tiles see a cell
  Buffer<uint32_t> continued_from_;
  std::vector<float> grid_, continued_, distances_;
  std::vector<uint32_t> rows_;
  std::vector<uint8_t> is_exact_;
};

}  // namespace

const char* name_of(CalibrationState state) noexcept {
  static constexpr const char* kNames[] = {"fitted", "exact", "bounded", "kept", "stale"};
  return kNames[static_cast<uint32_t>(state)];
}

std::optional<CalibrationPatches> read_calibration_patches(const Package& package, const Config& config,
                                                           const Calibration& calibration, size_t fitted_rows,
                                                           uint32_t product) {
  const std::string name = member_of(product);
  const MemberView* member = package.find(name);
  if (member == nullptr) return std::nullopt;
  const auto refuse = [&](const char* what) {
    fail(Status::kPackage, "%s: member '%s': %s; fit the package again", package.label().c_str(), name.c_str(), what);
  };
  const Fields fields(package, name.c_str());
  CalibrationPatchesRecord record{};
  if (member->size_bytes < sizeof record) refuse("is too short");
  std::memcpy(&record, member->data, sizeof record);
  fields.record_size(record.record_bytes, sizeof record, UINT32_MAX);
  fields.within("bounds", record.bounds, 0u, 1u);
  fields.zeros(record.zeros, sizeof record.zeros);
  const uint64_t n = record.image_count, tracked = record.tracked, patches = config.cell_count();
  if (record.record_bytes % 4 != 0 || record.record_bytes > member->size_bytes) {
    refuse("its record has an impossible size");
  }
  if (n != calibration.image_count || record.patch_count != patches || record.dims != config.embedding_dim ||
      tracked < 1 || tracked > patches) {
    refuse("is of another calibration or patch grid");
  }
  // n < 2^32; P ≥ T is at most 2^26 (the largest map) and P · D at most 2^28: words are below 2^62.
  const uint64_t words = n * (1 + 2 * patches + tracked + tracked * record.dims);
  if (member->size_bytes != record.record_bytes + 4 * words) refuse("has another size than its numbers say");
  CalibrationPatches view;
  view.image_count = record.image_count;
  view.tracked = record.tracked;
  view.bounds = record.bounds == 1;
  const uint8_t* at = member->data + record.record_bytes;
  const auto take = [&at](uint64_t count) {
    const uint8_t* array = at;
    at += 4 * count;
    return array;
  };
  view.parts = reinterpret_cast<const uint32_t*>(take(n));
  view.distances = reinterpret_cast<const float*>(take(n * patches));
  view.nearest = reinterpret_cast<const uint32_t*>(take(n * patches));
  view.patches = reinterpret_cast<const uint32_t*>(take(n * tracked));
  view.embeddings = reinterpret_cast<const float*>(take(n * tracked * record.dims));
  for (uint64_t i = 0; i < n; ++i) {
    if (view.parts[i] >= calibration.n) refuse("names a part that the calibration does not have");
  }
  for (uint64_t i = 0; i < n * patches; ++i) {
    if (view.nearest[i] >= fitted_rows) refuse("names a row that the memory bank does not have");
  }
  for (uint64_t i = 0; i < n * tracked; ++i) {
    if (view.patches[i] >= patches) refuse("names a patch that the grid does not have");
  }
  if (!all_finite(view.distances, n * patches) || !all_finite(view.embeddings, n * tracked * record.dims)) {
    refuse("holds a NaN or infinity");
  }
  return view;
}

Recalibrated recalibrate(const Package& package, const Config& config, const Scoring& scoring,
                         const Calibration& calibration, const CorrectedBank& bank, const BankChanges& changes,
                         const KernelTable& table) {
  Recalibrated result;
  result.calibrated = calibration.calibrated;
  result.threshold = calibration.threshold;
  result.map_threshold = calibration.map_threshold;
  result.scores.assign(calibration.scores, calibration.scores + calibration.n);
  result.map_maxima.assign(calibration.map_maxima, calibration.map_maxima + calibration.n);
  if (changes.none()) return result;

  const auto give_up = [&] {  // scores can only have fallen where rows joined, and may have risen where rows went
    result.state = changes.removed.empty() ? CalibrationState::kKept : CalibrationState::kStale;
    if (changes.removed.empty()) return;
    result.calibrated = false;
    result.threshold = result.map_threshold = kInfinity;
    result.scores.clear();
    result.map_maxima.clear();
  };
  const size_t fitted_rows = bank.index().row_count - changes.numbers.size();
  const std::optional<CalibrationPatches> patches =
      read_calibration_patches(package, config, calibration, fitted_rows, scoring.product);
  if (!patches) {
    give_up();
    return result;
  }
  std::vector<Rescored> parts(calibration.n, {-kInfinity, -kInfinity, true});
  Rescorer rescorer(config, scoring, *patches, bank, changes, table);
  for (size_t image = 0; image < patches->image_count; ++image) {
    const Rescored found = rescorer.run(image);
    if (!std::isfinite(found.score)) {  // an infinite threshold would call every part good
      fail(Status::kPackage,
           "%s: member '%s': held-out image %zu has no finite score after these corrections; leave it more rows of the "
           "memory bank, or fit the package again",
           package.label().c_str(), member_of(scoring.product).c_str(), image);
    }
    Rescored& part = parts[patches->parts[image]];
    if (found.score > part.score) part.exact = found.exact;
    part.score = std::max(part.score, found.score);
    part.map_maximum = std::max(part.map_maximum, found.map_maximum);
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].score == -kInfinity) {
      fail(Status::kPackage, "%s: member '%s': part %zu has no image; fit the package again", package.label().c_str(),
           member_of(scoring.product).c_str(), i);
    }
    result.scores[i] = parts[i].score;
    result.map_maxima[i] = parts[i].map_maximum;
    result.bounded_parts += parts[i].exact ? 0 : 1;
  }
  std::sort(result.scores.begin(), result.scores.end());
  std::sort(result.map_maxima.begin(), result.map_maxima.end());
  result.state = result.bounded_parts > 0 ? CalibrationState::kBounded : CalibrationState::kExact;
  if (!calibration.calibrated) return result;
  // Never below the package's: who confirms a false alarm must not get others for it.
  const double alpha = calibration.false_alarm_rate, confidence = calibration.confidence;
  const size_t rank = rank_of(calibration.threshold, calibration.scores, calibration.n, alpha, confidence);
  const size_t map_rank = rank_of(calibration.map_threshold, calibration.map_maxima, calibration.n, alpha, confidence);
  result.threshold = std::max(calibration.threshold, result.scores[rank - 1]);
  result.map_threshold = std::max(calibration.map_threshold, result.map_maxima[map_rank - 1]);
  return result;
}

}  // namespace onceover
