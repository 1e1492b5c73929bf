// The memory bank of a product in a compacted package: the fitted rows that are left, then those that joined, searched
// anew.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "corrections/corrections.h"
#include "corrections/recalibrate.h"
#include "package/config.h"
#include "scoring/memory_bank.h"

namespace onceover {

// `done` of `total` steps of `what`; may throw to stop.
using CompactProgress = std::function<void(const char* what, size_t done, size_t total)>;

class CompactedBank {
 public:
  // `package` must live as long. Throws Error(kPackage), and Error(kInput) for rows that are too many to be numbered.
  CompactedBank(const Package& package, const Config& config, uint32_t product, const BankChanges& changes,
                const CompactProgress& progress);

  uint32_t product() const { return product_; }
  MatrixView<const float> rows() const { return {rows_.data(), rows_.size() / dims_, dims_}; }  // (M, D)
  const MemoryBank& bank() const { return *bank_; }
  const std::vector<uint32_t>& left() const { return left_; }  // numbers of the fitted rows that are left, ascending
  // What a fitted row is called now; kNoRow where it is gone.
  uint32_t number_of(uint32_t fitted_row) const { return numbers_.at(fitted_row); }
  MatrixView<const float> fitted() const { return fitted_; }

  // For each row its `k` nearest ones, itself included, (M, k); fewer where there are no more.
  std::vector<uint32_t> neighbors(size_t k, size_t threads, const CompactProgress& progress) const;

 private:
  uint32_t product_;
  size_t dims_;
  MatrixView<const float> fitted_;
  std::vector<uint32_t> left_, numbers_;
  std::vector<float> rows_;
  std::unique_ptr<MemoryBank> bank_;
};

// The member "calibration_patches" of the bank's product by the new rows: of the patches whose embeddings are kept
// exactly, of the others no lower than they are, by way of a row near the one that is gone. Throws Error(kPackage).
std::vector<uint8_t> compacted_patches(const CalibrationPatches& old, const Config& config, const CompactedBank& bank,
                                       const BankChanges& changes, const Package& package);

}  // namespace onceover
