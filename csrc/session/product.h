// What one product adds to the shared network: its memory bank, the calibration on its good parts, thresholds in force.
#pragma once

#include <memory>

#include "corrections/recalibrate.h"
#include "kernels/kernel_table.h"
#include "package/config.h"
#include "scoring/search_index.h"

namespace onceover {

enum class Decision : uint32_t { kUncalibrated = 0, kNormal = 1, kAnomalous = 2 };
const char* name_of(Decision decision) noexcept;  // "uncalibrated", "normal", "anomalous"

// The threshold of a package without calibration is +inf, and nothing is decided by it.
Decision decision_of(float score, float threshold) noexcept;

class Product {
 public:
  // Reads bank and calibration in place from `package`, which must live as long. Throws Error(kPackage).
  Product(const Package& package, const Config& config, const KernelTable& table, Memory& memory);
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  // With the corrections that were applied; without them while a FittedOnly lives.
  const SearchIndex& index() const { return is_corrected() ? corrected_->index() : index_; }
  const Calibration& calibration() const { return is_corrected() ? corrected_calibration_ : calibration_; }
  // What people and journals call a row of index().
  uint32_t number(uint32_t row) const { return is_corrected() ? corrected_->number(row) : row; }
  float threshold() const { return threshold_; }          // +inf when there is none
  float map_threshold() const { return map_threshold_; }  // +inf when there is none
  // Finite, else Error(kUsage).
  void set_threshold(float threshold);
  void set_map_threshold(float map_threshold);

  // Replaces the corrections applied before; what fails leaves them. The first time it takes memory for every journal
  // of that bound. Thresholds follow the new calibration, unless they were set otherwise. Throws Error(kMemory |
  // kUsage | kPackage).
  void apply(const Package& package, const Config& config, const BankChanges& changes, size_t max_added_rows,
             const KernelTable& table, Memory& memory);
  // Of a search, whatever is applied within that bound.
  size_t scratch_bytes(size_t max_added_rows) const { return CorrectedBank::scratch_bytes(index_, max_added_rows); }
  struct Applied {
    size_t added_rows = 0, removed_rows = 0;
    CalibrationState state = CalibrationState::kFitted;
    size_t bounded_parts = 0;  // whose calibration scores may be too high
  };
  const Applied& applied() const { return applied_; }

  class FittedOnly {
   public:
    explicit FittedOnly(Product& product) : product_(product) { product_.fitted_only_ = true; }
    ~FittedOnly() { product_.fitted_only_ = false; }
    FittedOnly(const FittedOnly&) = delete;
    FittedOnly& operator=(const FittedOnly&) = delete;

   private:
    Product& product_;
  };

 private:
  bool is_corrected() const { return corrected_ != nullptr && !fitted_only_; }

  Buffer<uint8_t> own_index_;  // of a package that has no search index: every row is scanned
  SearchIndex index_;
  Calibration calibration_;
  float threshold_, map_threshold_;
  std::unique_ptr<CorrectedBank> corrected_;  // none until the first apply
  Buffer<float> corrected_scores_;            // (2, n): image scores, map maxima
  Calibration corrected_calibration_;
  BankChanges changes_;
  Applied applied_;
  bool fitted_only_ = false;
};

}  // namespace onceover
