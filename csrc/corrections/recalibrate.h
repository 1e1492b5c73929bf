// Thresholds and p-values for a corrected memory bank. The held-out parts are scored again as far as the package
// remembers them (member "calibration_patches"): exactly, or not too low, so that the promised false-alarm rate holds.
#pragma once

#include <optional>
#include <vector>

#include "corrections/corrected_bank.h"
#include "package/config.h"

namespace onceover {

// The member "calibration_patches" of a product, viewed in place; n images of the calibration, P patches each: the
// cells of the patch grid of all tiles. Outside a region of interest distances and rows mean nothing.
struct CalibrationPatches {
  uint32_t image_count = 0, tracked = 0;  // n, T
  bool bounds = false;                    // distances of patches that are not tracked may be too high
  const uint32_t* parts = nullptr;        // (n) which part an image shows, below the calibration's n
  const float* distances = nullptr;       // (n, P) of patches to the fitted bank
  const uint32_t* nearest = nullptr;      // (n, P) the fitted row each is nearest to
  const uint32_t* patches = nullptr;      // (n, T) those with the highest scores
  const float* embeddings = nullptr;      // (n, T, D) of these; where tiles overlap, of the one whose score counts
};

// None where the package has no such member. Throws Error(kPackage) for one that does not fit the package.
std::optional<CalibrationPatches> read_calibration_patches(const Package& package, const Config& config,
                                                           const Calibration& calibration, size_t fitted_rows,
                                                           uint32_t product = 0);

enum class CalibrationState : uint32_t {
  kFitted = 0,   // nothing changed
  kExact = 1,    // every part's score is what a new calibration would find
  kBounded = 2,  // some parts' scores may be too high: at most the promised rate of false alarms, more may be missed
  kKept = 3,     // the package remembers no patches; rows were only added, so the old threshold keeps its promise
  kStale = 4,    // it remembers none, and fitted rows were removed: nothing is promised, and nothing decided
};
const char* name_of(CalibrationState state) noexcept;

// Thresholds are those of a new calibration, but never below the package's, which keep its promise as rows join: so no
// correction ever flags a part that was not flagged before, unless it removes rows.
struct Recalibrated {
  CalibrationState state = CalibrationState::kFitted;
  bool calibrated = false;
  float threshold = 0, map_threshold = 0;  // +inf where not calibrated
  std::vector<float> scores, map_maxima;   // ascending, one of each per part
  size_t bounded_parts = 0;
};

// How distances become the patch scores of an image of a product.
struct Scoring {
  uint32_t product;
  const Roi& roi;
  const float* position_weights;  // (cell_count); null: scores are distances
};

// Of one product: `bank` has `changes` applied.
Recalibrated recalibrate(const Package& package, const Config& config, const Scoring& scoring,
                         const Calibration& calibration, const CorrectedBank& bank, const BankChanges& changes,
                         const KernelTable& table);

}  // namespace onceover
