// What one product adds to the shared network: its adaptation and memory bank, what a distance counts where, the
// calibration on its good parts, thresholds in force, and the region of interest.
#pragma once

#include <memory>
#include <string>

#include "corrections/recalibrate.h"
#include "image/roi.h"
#include "kernels/kernel_table.h"
#include "package/config.h"
#include "package/products.h"
#include "scoring/search_index.h"
#include "session/adaptation.h"

namespace onceover {

// kWrongPart: the image looks like none of the package's products as a whole, so that nothing else is decided.
enum class Decision : uint32_t { kUncalibrated = 0, kNormal = 1, kAnomalous = 2, kWrongPart = 3 };
const char* name_of(Decision decision) noexcept;  // "uncalibrated", "normal", "anomalous", "wrong_part"

// The threshold of a package without calibration is +inf, and nothing is decided by it.
Decision decision_of(float score, float threshold) noexcept;

// The features of an image, tile after tile, whose cells are inside `roi`: those that fit learns from and a session
// searches for.
Buffer<uint32_t> features_inside(const Config& config, const Roi& roi, Memory& memory);

class Product {
 public:
  // Reads bank and calibration in place from `package`, which must live as long. Throws Error(kPackage).
  Product(const Package& package, const Config& config, const KernelTable& table, Memory& memory, uint32_t number = 0,
          std::string name = {});
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  const std::string& name() const { return name_; }  // empty: the package's only one
  uint32_t number() const { return number_; }
  // With the corrections that were applied; without them while a FittedOnly lives.
  const SearchIndex& index() const { return is_corrected() ? corrected_->index() : index_; }
  const Calibration& calibration() const { return is_corrected() ? corrected_calibration_ : calibration_; }
  // What people and journals call a row of index().
  uint32_t row_number(uint32_t row) const { return is_corrected() && row != kNoRow ? corrected_->number(row) : row; }
  const Adaptation& adaptation() const { return adaptation_; }
  // (cell_count): distances times these are patch scores; null where they are themselves.
  const float* position_weights() const { return position_weights_; }
  const Roi& roi() const { return roi_; }
  bool has_gate() const { return gate_.dims > 0; }
  // How far an image is from the product's own as a whole, in units of the gate's threshold: above 1 it is none of
  // them. features: the network's own, which products share. `pooled` (D) is scratch.
  double gate_ratio(MatrixView<const float> features, float* pooled) const noexcept;
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

  // Whether these very changes are applied, with room for as many rows.
  bool has_applied(const BankChanges& changes, size_t max_added_rows) const {
    return corrected_ != nullptr && corrected_->max_added_rows() >= max_added_rows && changes_ == changes;
  }
  // Corrections in place of those applied before, ready for a `commit` that cannot fail; dropped without it, what was
  // applied before still is. Until then the product must not be used. The first one takes memory for every journal of
  // that bound. Thresholds follow the new calibration, unless they were set otherwise.
  class Change {
   public:
    // Throws Error(kMemory | kUsage | kPackage).
    Change(Product& product, const Package& package, const Config& config, const BankChanges& changes,
           size_t max_added_rows, const KernelTable& table, Memory& memory);
    ~Change();
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;
    void commit() noexcept;

   private:
    Product& product_;
    BankChanges changes_;
    std::unique_ptr<CorrectedBank> made_;  // where there was none, or too small a one
    Buffer<float> scores_;
    CorrectedBank::Kept kept_;  // of the one that there was
    Recalibrated found_;
    bool is_committed_ = false;
  };
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

  std::string name_;
  uint32_t number_;
  Adaptation adaptation_;
  Buffer<uint8_t> own_index_;  // of a package that has no search index: every row is scanned
  SearchIndex index_;
  Calibration calibration_;
  const float* position_weights_;
  Roi roi_;
  GateModel gate_;
  Buffer<uint8_t> inside_;  // (cell_count): kept, because an arena takes back only what was given last
  Buffer<uint32_t> searched_, continued_from_;
  float threshold_, map_threshold_;
  std::unique_ptr<CorrectedBank> corrected_;  // none until the first apply
  Buffer<float> corrected_scores_;            // (2, n): image scores, map maxima
  Calibration corrected_calibration_;
  BankChanges changes_;
  Applied applied_;
  bool fitted_only_ = false;
};

}  // namespace onceover
