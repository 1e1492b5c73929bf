// What one product adds to the shared network: its memory bank, the calibration on its good parts, thresholds in force,
// and the region of interest.
#pragma once

#include "image/roi.h"
#include "kernels/kernel_table.h"
#include "package/config.h"
#include "scoring/search_index.h"

namespace onceover {

enum class Decision : uint32_t { kUncalibrated = 0, kNormal = 1, kAnomalous = 2 };
const char* name_of(Decision decision) noexcept;  // "uncalibrated", "normal", "anomalous"

// The threshold of a package without calibration is +inf, and nothing is decided by it.
Decision decision_of(float score, float threshold) noexcept;

// The features of an image, tile after tile, whose cells are inside `roi`: those that fit learns from and a session
// searches for.
Buffer<uint32_t> features_inside(const Config& config, const Roi& roi, Memory& memory);

class Product {
 public:
  // Reads bank and calibration in place from `package`, which must live as long. Throws Error(kPackage).
  Product(const Package& package, const Config& config, const KernelTable& table, Memory& memory);
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  const SearchIndex& index() const { return index_; }
  const Calibration& calibration() const { return calibration_; }
  const Roi& roi() const { return roi_; }
  // Which features are searched for: (n), of config.feature_count(), ascending. Empty where the whole image is
  // inspected.
  const Buffer<uint32_t>& searched() const { return searched_; }
  // Patch scores and nearest rows (cell_count): outside the region they become 0, and `continued` gets the scores as
  // nearest_inside (image/roi.h) continues them. Where the whole image is inspected, nothing is done. Returns a cell
  // inside, the first one where all are.
  size_t mask(float* scores, uint32_t* rows, float* continued) const noexcept;
  float threshold() const { return threshold_; }          // +inf when there is none
  float map_threshold() const { return map_threshold_; }  // +inf when there is none
  // Finite, else Error(kUsage).
  void set_threshold(float threshold);
  void set_map_threshold(float map_threshold);

 private:
  Buffer<uint8_t> own_index_;  // of a package that has no search index: every row is scanned
  SearchIndex index_;
  Calibration calibration_;
  Roi roi_;
  Buffer<uint32_t> searched_, continued_from_;
  float threshold_, map_threshold_;
};

}  // namespace onceover
